//! The repository's own tools: `test`, `tidy`, `checklist`, `bench`, `crash`, `fuzz`, `schemathesis`.
//!
//! Nothing here is part of the product. It reads the repository, runs cargo, and says what is wrong; it
//! never changes source files; `checklist` writes `docs/checklist.md` alone, `fuzz --keep` the corpus of `fuzz/`.

mod bench;
mod checklist;
mod console;
mod crash;
mod fuzz;
mod packages;
mod postgres;
mod repository;
mod rust;
mod schemathesis;
mod test;
mod tidy;

use std::process::ExitCode;

use console::{fail, say};
use repository::Repository;

const USAGE: &str = "\
cargo xtask test [--fast]        everything that must hold before a commit; --fast leaves out clippy and what needs the network
cargo xtask tidy                 the rules of the repository itself
cargo xtask checklist [--check]  write docs/checklist.md, or say whether it is what would be written
cargo xtask postgres COMMAND …   run a command with a PostgreSQL server for tests beside it
cargo xtask schemathesis         call every operation of a server's OpenAPI document
cargo xtask fuzz --minutes N     every fuzz target, N minutes together
cargo xtask fuzz --keep          take what fuzzing found into the corpus, as far as it adds coverage
cargo xtask bench [--only PART]  what the layers cost, against bare peers; without arguments docs/benchmarks.md is written
cargo xtask crash […]            kills a server at any moment, restarts it, and compares; --rounds N, --seed S,
                                 --database sqlite|postgres|postgres://…, --hardships, --only NAME";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let repository = match Repository::open() {
        Ok(repository) => repository,
        Err(error) => {
            fail(&format!("the repository cannot be read: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let done = match words.as_slice() {
        ["test"] => test::run(&repository, test::Extent::Whole),
        ["test", "--fast"] => test::run(&repository, test::Extent::Fast),
        ["tidy"] => tidy::run(&repository),
        ["checklist"] => checklist::write(&repository),
        ["checklist", "--check"] => checklist::check(&repository),
        ["postgres", words @ ..] => postgres::around(words),
        ["schemathesis"] => schemathesis::run(&repository, &test::target_directory(&repository)),
        ["fuzz", "--minutes", minutes] => fuzz::for_minutes(&repository, &test::target_directory(&repository), minutes),
        ["fuzz", "--keep"] => fuzz::keep(&repository, &test::target_directory(&repository)),
        ["bench", arguments @ ..] => bench::run(&repository, arguments),
        ["crash", arguments @ ..] => crash::run(&repository, arguments),
        _ => {
            say(USAGE);
            return ExitCode::from(64);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            fail(&problem);
            ExitCode::FAILURE
        }
    }
}
