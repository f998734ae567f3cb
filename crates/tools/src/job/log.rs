//! What a job says, on its way from the command's pipes into the store.
//!
//! Whoever reads the pipes never waits here: the beginning is held whole until it is written, of what comes later
//! only so much is held at once, and the oldest of that is left out and counted. Text is taken line by line, so that
//! a known secret is never cut in two by a group's border.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bailiwick_sandbox::Stream;
use bailiwick_types::limits::JOB_LOG_HEAD;
use bailiwick_vault::Redactor;
use serde_json::{Map, Value, json};
use tokio::sync::Notify;

/// Bytes of one line; the rest of it is left out.
const LINE_BYTES: usize = 16 * 1024;
/// Bytes that wait to be written beyond the beginning.
const WAITING_BYTES: usize = 256 * 1024;
/// Bytes in one event.
const EVENT_BYTES: usize = 48 * 1024;
/// What a piece costs beside its text.
const PIECE_COST: usize = 16;

/// A group of a job's output, for one event.
#[derive(Debug, Clone, PartialEq)]
pub struct Said {
    /// The event's fields.
    pub fields: Value,
    /// How many bytes it counts.
    pub bytes: usize,
    /// Whether it is of the beginning, which is kept.
    pub part: Part,
}

/// A part of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The beginning: it stays.
    Head,
    /// What comes later: the newest of it stays.
    Tail,
}

/// Takes what a job says, and gives it out in groups.
pub struct JobLog {
    redactor: Arc<Redactor>,
    state: Mutex<State>,
    grown: Notify,
}

#[derive(Default)]
struct State {
    /// So much more of a line is looked through for secrets than is kept, so that its border shows no part of one.
    beyond: usize,
    open: [Open; 2],
    head_bytes: usize,
    head: VecDeque<Piece>,
    tail: VecDeque<Piece>,
    tail_bytes: usize,
    /// Bytes that were left out before the tail.
    left_out: u64,
}

/// The line that a stream is writing.
#[derive(Default)]
struct Open {
    bytes: Vec<u8>,
    left_out: u64,
}

struct Piece {
    stream: Stream,
    text: String,
}

impl Piece {
    fn cost(&self) -> usize {
        self.text.len() + PIECE_COST
    }
}

impl JobLog {
    pub(crate) fn new(redactor: Arc<Redactor>) -> Self {
        let state = State { beyond: redactor.longest(), ..State::default() };
        Self { redactor, state: Mutex::new(state), grown: Notify::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the next bytes of a stream. Never waits for a reader.
    pub fn write(&self, stream: Stream, bytes: &[u8]) {
        let mut state = self.state();
        let mut rest = bytes;
        // A carriage return ends a line as well: so programs show how far they are.
        while let Some(end) = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
            let (line, after) = rest.split_at(end + 1);
            state.extend(stream, line);
            state.finish_line(stream, &self.redactor);
            rest = after;
        }
        state.extend(stream, rest);
        drop(state);
        self.grown.notify_one();
    }

    /// Waits until something came.
    pub async fn grown(&self) {
        self.grown.notified().await;
    }

    /// What came since the last time, in groups. At the end also lines that were never ended.
    pub fn take(&self, end: End) -> Vec<Said> {
        let mut state = self.state();
        if end == End::Yes {
            for stream in [Stream::Stdout, Stream::Stderr] {
                state.finish_line(stream, &self.redactor);
            }
        }
        let (head, tail) = (std::mem::take(&mut state.head), std::mem::take(&mut state.tail));
        let left_out = std::mem::take(&mut state.left_out);
        state.tail_bytes = 0;
        drop(state);
        let mut said = groups(head, Part::Head, 0);
        said.extend(groups(tail, Part::Tail, left_out));
        said
    }
}

/// Whether the command has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It has: no more comes.
    Yes,
    /// More may come.
    No,
}

impl State {
    fn open(&mut self, stream: Stream) -> &mut Open {
        let [stdout, stderr] = &mut self.open;
        match stream {
            Stream::Stdout => stdout,
            Stream::Stderr => stderr,
        }
    }

    fn extend(&mut self, stream: Stream, bytes: &[u8]) {
        let room = LINE_BYTES + self.beyond;
        let open = self.open(stream);
        let room = room.saturating_sub(open.bytes.len());
        let kept = bytes.get(..room).unwrap_or(bytes);
        open.bytes.extend_from_slice(kept);
        open.left_out += (bytes.len() - kept.len()) as u64;
    }

    fn finish_line(&mut self, stream: Stream, redactor: &Redactor) {
        let beyond = self.beyond;
        let Open { bytes, left_out } = std::mem::take(self.open(stream));
        if bytes.is_empty() {
            return;
        }
        let text = String::from_utf8_lossy(&bytes);
        let clean = redactor.redact(&text);
        // What was cut may end with a part of a secret, wherever that is once others before it are shorter.
        let whole = if left_out > 0 { clean.len().saturating_sub(beyond) } else { clean.len() };
        let cut = clean.floor_char_boundary(LINE_BYTES.min(whole));
        let mut line = clean.get(..cut).unwrap_or(&clean).to_owned();
        let missing = left_out + (clean.len() - line.len()) as u64;
        if missing > 0 {
            line.push_str(&format!("[{missing} bytes of this line left out]\n"));
        }
        self.push(stream, &line);
    }

    fn push(&mut self, stream: Stream, line: &str) {
        let beginning = self.head_bytes < JOB_LOG_HEAD;
        let pieces = if beginning { &mut self.head } else { &mut self.tail };
        let cost = match pieces.back_mut() {
            // Pieces stay short, so that what is left out is not much more than has to be.
            Some(last) if last.stream == stream && last.text.len() + line.len() <= LINE_BYTES => {
                last.text.push_str(line);
                line.len()
            }
            _ => {
                pieces.push_back(Piece { stream, text: line.to_owned() });
                line.len() + PIECE_COST
            }
        };
        if beginning {
            self.head_bytes += cost;
            return;
        }
        self.tail_bytes += cost;
        while self.tail_bytes > WAITING_BYTES {
            let Some(oldest) = self.tail.pop_front() else { return };
            self.tail_bytes -= oldest.cost();
            self.left_out += oldest.text.len() as u64;
        }
    }
}

fn groups(pieces: VecDeque<Piece>, part: Part, mut left_out: u64) -> Vec<Said> {
    let mut said: Vec<Said> = Vec::new();
    let mut group: Vec<Value> = Vec::new();
    let mut bytes = 0;
    let mut close = |group: &mut Vec<Value>, bytes: &mut usize| {
        if group.is_empty() {
            return;
        }
        let mut fields = Map::from_iter([("output".to_owned(), Value::Array(std::mem::take(group)))]);
        if left_out > 0 {
            fields.insert("left_out".to_owned(), json!(std::mem::take(&mut left_out)));
        }
        said.push(Said { fields: Value::Object(fields), bytes: std::mem::take(bytes), part });
    };
    for piece in pieces {
        if bytes + piece.cost() > EVENT_BYTES {
            close(&mut group, &mut bytes);
        }
        bytes += piece.cost();
        let Piece { stream, text } = piece;
        group.push(match stream {
            Stream::Stdout => json!({ "stdout": text }),
            Stream::Stderr => json!({ "stderr": text }),
        });
    }
    close(&mut group, &mut bytes);
    said
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use super::*;

    fn log() -> JobLog {
        JobLog::new(Arc::new(Redactor::new([("key".to_owned(), "very-secret-value")].into_iter())))
    }

    fn text(said: &[Said]) -> String {
        let pieces = said.iter().flat_map(|said| said.fields["output"].as_array().unwrap());
        pieces.map(|piece| piece["stdout"].as_str().or(piece["stderr"].as_str()).unwrap()).collect()
    }

    #[test]
    fn b06_lines_come_whole_and_in_order() {
        let log = log();
        log.write(Stream::Stdout, b"one\ntw");
        log.write(Stream::Stderr, b"oops\n");
        let first = log.take(End::No);
        assert_eq!(first[0].fields, json!({ "output": [{ "stdout": "one\n" }, { "stderr": "oops\n" }] }));
        log.write(Stream::Stdout, b"o\r");
        assert_eq!(text(&log.take(End::No)), "two\r");
        log.write(Stream::Stdout, b"last");
        assert_eq!(log.take(End::No), vec![]);
        assert_eq!(text(&log.take(End::Yes)), "last");
        assert_eq!(log.take(End::Yes), vec![]);
    }

    #[test]
    fn b06_a_secret_is_hidden_wherever_the_groups_and_the_lines_are_cut() {
        let secret = "very-secret-value";
        for at in 0..secret.len() {
            let log = log();
            log.write(Stream::Stdout, &secret.as_bytes()[..at]);
            let mut said = log.take(End::No);
            log.write(Stream::Stdout, &secret.as_bytes()[at..]);
            log.write(Stream::Stdout, b"\n");
            said.extend(log.take(End::Yes));
            assert_eq!(text(&said), "[redacted:key]\n");
            // At the border of a line that is too long.
            let log = self::log();
            log.write(Stream::Stdout, &vec![b'x'; LINE_BYTES - at]);
            log.write(Stream::Stdout, secret.as_bytes());
            log.write(Stream::Stdout, &[b'y'; 3000]);
            let shown = text(&log.take(End::Yes));
            assert!(!shown.contains("very") && shown.ends_with("of this line left out]\n"), "{at}");
        }
    }

    #[test]
    fn e08_a_long_secret_is_not_shown_in_part_where_a_line_is_cut() {
        let secret: String = (0..500).map(|n| format!("{n:04}")).collect();
        let redactor = Arc::new(Redactor::new([("key".to_owned(), secret.as_str())].into_iter()));
        for (before, from) in [(0, 1), (0, 1999), (1, 1), (3, 700)] {
            let log = JobLog::new(Arc::clone(&redactor));
            let mut line = secret.repeat(before);
            line.push_str(&"x".repeat(LINE_BYTES + secret.len() - from - line.len()));
            log.write(Stream::Stdout, line.as_bytes());
            log.write(Stream::Stdout, secret.as_bytes());
            log.write(Stream::Stdout, b"\n");
            let shown = text(&log.take(End::Yes));
            assert!(!shown.contains(&secret[..4]) && !shown.contains("0100"), "{before} {from}: {shown}");
            assert_eq!(shown.matches("[redacted:key]").count(), before);
            assert!(shown.len() > 8000, "the rest is shown");
        }
    }

    #[test]
    fn b06_memory_is_bounded_and_the_beginning_and_the_end_stay() {
        let log = log();
        for n in 0..400_000 {
            log.write(Stream::Stdout, format!("line {n}\n").as_bytes());
        }
        let held: usize = {
            let state = log.state();
            state.head.iter().chain(&state.tail).map(Piece::cost).sum()
        };
        assert!(held <= JOB_LOG_HEAD + WAITING_BYTES + 2 * LINE_BYTES, "{held}");
        let said = log.take(End::Yes);
        let (shown, written) = (text(&said), (0..400_000).map(|n| format!("line {n}\n").len() as u64).sum::<u64>());
        assert!(shown.starts_with("line 0\nline 1\n") && shown.ends_with("line 399999\n"));
        let missing: u64 = said.iter().filter_map(|said| said.fields["left_out"].as_u64()).sum();
        assert_eq!(shown.len() as u64 + missing, written);
        assert!(said.iter().all(|said| said.bytes <= EVENT_BYTES + LINE_BYTES));
        // Later it goes on with what comes later.
        log.write(Stream::Stdout, b"more\n");
        let more = log.take(End::Yes);
        assert_eq!((more[0].part, text(&more).as_str()), (Part::Tail, "more\n"));
    }
}
