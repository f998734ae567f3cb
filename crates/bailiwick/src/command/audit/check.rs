//! What needs no trust in the server: exports, checkpoints and proofs, and checking them. What is checked
//! here is checked by this program, with the library that the server has too, and by nothing the server says.

use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::path::{Path, PathBuf};

use bailiwick_audit::Hash;
use bailiwick_audit::checkpoint::{Checkpoint, SignedNote, VerifierKey};
use bailiwick_audit::event::hex;
use bailiwick_audit::export::verify_export;
use bailiwick_audit::proof::{ProofError, check_consistency, check_inclusion};
use bailiwick_types::Timestamp;
use reqwest::Method;
use serde_json::{Value, json};

use super::{ExportWord, below};
use crate::client::{Ask, ClientError};
use crate::command::{Context, text};
use crate::failure::{Failure, in_file};
use crate::out::{self, Format, Style};

/// Bytes of a file of checkpoints.
const NOTES_BYTES: u64 = 16 * 1024 * 1024;

fn wrong(text: impl Into<String>, hint: &'static str) -> Failure {
    Failure::Usage { text: text.into(), hint }
}

/// Checks an exported log, without a server.
pub(crate) fn run(file: &Path, key: Option<&str>, older: &[PathBuf], format: Format) -> Result<(), Failure> {
    let key = match key {
        Some(text) => Some(
            text.parse::<VerifierKey>()
                .map_err(|error| wrong(format!("--key: {error}"), "`bailiwick audit key` prints it"))?,
        ),
        None => None,
    };
    let checkpoints = older.iter().map(|path| read_older(path, key.as_ref(), format));
    let checkpoints: Vec<Checkpoint> = checkpoints.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect();
    let found = if file.as_os_str() == "-" {
        verify_export(std::io::stdin().lock(), key.as_ref(), &checkpoints)
    } else {
        let opened = File::open(file).map_err(in_file(file))?;
        verify_export(BufReader::new(opened), key.as_ref(), &checkpoints)
    };
    match found {
        Ok(report) => {
            match format {
                Format::Json => out::json(&json!({
                    "ok": true,
                    "log": report.log,
                    "origin": report.origin,
                    "size": report.head.size,
                    "root": hex(&report.head.root),
                    "retired": report.retired,
                    "signed": report.signed,
                    "verified_key": key.is_some(),
                    "older": report.older,
                })),
                Format::Text => out::line(&out::clean(&report.to_string())),
            }
            Ok(())
        }
        Err(problem) => Err(not_whole(problem.code(), &problem.to_string(), format)),
    }
}

/// Says what is wrong, in the words of the independent verifier.
fn not_whole(code: &str, problem: &str, format: Format) -> Failure {
    match format {
        Format::Json => out::json(&json!({ "ok": false, "code": code, "problem": problem })),
        Format::Text => {
            out::line(&format!("{} {code}", out::paint(Style::Bad, "problem:")));
            out::line(&out::clean(problem));
        }
    }
    Failure::Reported
}

/// The checkpoints in a file: one note, or the notes that a server kept, each with an empty line after it.
fn read_older(path: &Path, key: Option<&VerifierKey>, format: Format) -> Result<Vec<Checkpoint>, Failure> {
    let mut text = String::new();
    let opened = File::open(path).map_err(in_file(path))?;
    opened.take(NOTES_BYTES).read_to_string(&mut text).map_err(in_file(path))?;
    let blocks: Vec<&str> = text.trim_end_matches('\n').split("\n\n").collect();
    let mut checkpoints = Vec::new();
    for pair in blocks.chunks(2) {
        let note = format!("{}\n", pair.join("\n\n").trim_start_matches('\n'));
        let opened = note.parse::<SignedNote>().and_then(|note| match key {
            Some(key) => note.open(key),
            None => note.read_unverified(),
        });
        match opened {
            Ok(checkpoint) => checkpoints.push(checkpoint),
            Err(error) => {
                let code = bailiwick_audit::export::ExportProblem::Checkpoint(error.clone()).code();
                return Err(not_whole(code, &format!("{}: {error}", path.display()), format));
            }
        }
    }
    Ok(checkpoints)
}

/// Writes a log as it comes.
pub(super) async fn export(
    context: &Context,
    format: ExportWord,
    to: Option<PathBuf>,
    host: bool,
) -> Result<(), Failure> {
    let word = match format {
        ExportWord::Jsonl => "jsonl",
        ExportWord::Csv => "csv",
    };
    let path = [&["api", "v1"], below(host, &["export"]).as_slice()].concat();
    let mut response = context.client.open(&path, &[("format", word.to_owned())]).await?;
    let mut file = match &to {
        Some(path) => Some(File::create(path).map_err(in_file(path))?),
        None => None,
    };
    let terminal = out::is_terminal();
    while let Some(piece) = response.chunk().await.map_err(ClientError::Broken)? {
        match (&mut file, &to) {
            (Some(file), Some(path)) => file.write_all(&piece).map_err(in_file(path))?,
            // A person's terminal is protected; a pipe gets the bytes as they are.
            _ if terminal => out::piece(&out::clean(&String::from_utf8_lossy(&piece))),
            _ => out::bytes(&piece),
        }
    }
    Ok(())
}

pub(super) async fn checkpoint(context: &Context, host: bool) -> Result<(), Failure> {
    let answer = context.get(&below(host, &["checkpoint"])).await?;
    match context.format {
        Format::Json => out::json(&answer),
        Format::Text => out::piece(&out::clean(text(&answer, "note")?)),
    }
    Ok(())
}

pub(super) async fn key(context: &Context, host: bool) -> Result<(), Failure> {
    let answer = context.get(&below(host, &["checkpoint"])).await?;
    match context.format {
        Format::Json => out::json(&json!({ "key": answer["key"] })),
        Format::Text => out::line(&out::clean(text(&answer, "key")?)),
    }
    Ok(())
}

fn hash(text: &str) -> Option<Hash> {
    let digit = |at: usize| u8::from_str_radix(text.get(at..at + 2)?, 16).ok();
    let bytes: Option<Vec<u8>> = (0..text.len()).step_by(2).map(digit).collect();
    bytes?.try_into().ok()
}

fn hash_of(answer: &Value, field: &'static str) -> Result<Hash, ClientError> {
    hash(text(answer, field)?).ok_or(ClientError::Incomplete(field))
}

fn number(answer: &Value, field: &'static str) -> Result<u64, ClientError> {
    answer[field].as_u64().ok_or(ClientError::Incomplete(field))
}

fn hashes(answer: &Value) -> Result<Vec<Hash>, ClientError> {
    let listed = out::array(&answer["hashes"]).iter().map(|it| it.as_str().and_then(hash));
    listed.collect::<Option<_>>().ok_or(ClientError::Incomplete("hashes"))
}

fn query(fields: [(&'static str, Option<u64>); 2]) -> Vec<(&'static str, String)> {
    fields.into_iter().filter_map(|(name, value)| Some((name, value?.to_string()))).collect()
}

pub(super) async fn inclusion(context: &Context, seq: u64, size: Option<u64>, host: bool) -> Result<(), Failure> {
    let query = query([("seq", Some(seq)), ("size", size)]);
    let answer = context.get_with(&below(host, &["proof", "inclusion"]), &query).await?;
    let (size, root) = (number(&answer, "size")?, hash_of(&answer, "root")?);
    let checked = check_inclusion(seq, size, &hash_of(&answer, "leaf_hash")?, &hashes(&answer)?, &root);
    shown(context, &answer, checked, &format!("event {seq} is in the log of {size} events"))
}

pub(super) async fn consistency(context: &Context, from: u64, to: Option<u64>, host: bool) -> Result<(), Failure> {
    let query = query([("from", Some(from)), ("to", to)]);
    let answer = context.get_with(&below(host, &["proof", "consistency"]), &query).await?;
    let (to, hashes) = (number(&answer, "to")?, hashes(&answer)?);
    let (old, new) = (hash_of(&answer, "from_root")?, hash_of(&answer, "to_root")?);
    let checked = check_consistency(from, to, &old, &new, &hashes);
    shown(context, &answer, checked, &format!("the log of {to} events begins with that of {from}"))
}

fn shown(context: &Context, answer: &Value, checked: Result<(), ProofError>, fact: &str) -> Result<(), Failure> {
    if let Err(problem) = checked {
        return Err(not_whole("proof", &problem.to_string(), context.format));
    }
    match context.format {
        Format::Json => out::json(answer),
        Format::Text => {
            out::line(&format!("{} {fact}", out::paint(Style::Good, "proven:")));
            for name in ["leaf_hash", "root", "from_root", "to_root"] {
                if let Some(hash) = answer[name].as_str() {
                    out::line(&format!("{name:<9}  {}", out::clean(hash)));
                }
            }
            out::line("Compare the root with a checkpoint that you trust.");
        }
    }
    Ok(())
}

pub(super) async fn retire(context: &Context, before: &str, host: bool) -> Result<(), Failure> {
    let time = if before.contains('T') { before.to_owned() } else { format!("{before}T00:00:00Z") };
    let time: Timestamp = time
        .parse()
        .map_err(|_| wrong(format!("--before: not a day or a time: {before}"), "write for example 2026-01-31"))?;
    let body = json!({ "before": time });
    let answer = context.client.api(Method::POST, &below(host, &["retire"]), Ask::body(&body)).await?;
    let (below, retired) = (number(&answer, "below")?, number(&answer, "retired")?);
    context
        .done(&answer, &format!("{retired} events were retired; what is below number {below} says nothing any more."));
    Ok(())
}
