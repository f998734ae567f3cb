//! Server-sent events as they come from models: the pieces in which they arrive do not matter, and
//! nothing longer than the limit is ever held. The parser is private to its crate and is compiled in here
//! from its own file. The first bytes say where the stream is cut.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sse::{SseEvent, SseParser, SseProblem};

#[allow(dead_code)]
#[path = "../../crates/model/src/sse.rs"]
mod sse;

const LIMIT: usize = 512;

fuzz_target!(|data: &[u8]| {
    let Some((cuts, stream)) = data.split_at_checked(4) else { return };
    let whole = read(&[stream]);
    let mut ends: Vec<usize> = cuts.iter().map(|cut| usize::from(*cut) % (stream.len() + 1)).collect();
    ends.extend([0, stream.len()]);
    ends.sort_unstable();
    let pieces: Vec<&[u8]> = ends.windows(2).map(|ends| &stream[ends[0]..ends[1]]).collect();
    assert_eq!(read(&pieces), whole, "pieces {ends:?}");
    let bytes: Vec<&[u8]> = stream.chunks(1).collect();
    assert_eq!(read(&bytes), whole, "byte by byte");
    // Lines may end in three ways, which mean the same.
    if whole.1.is_none()
        && let Ok(text) = std::str::from_utf8(stream)
    {
        let plain = text.replace("\r\n", "\n").replace('\r', "\n");
        assert_eq!(read(&[plain.as_bytes()]), whole, "line ends");
    }
    for event in &whole.0 {
        assert!(event.data.len() <= LIMIT && event.name.len() <= LIMIT);
        assert!(!event.data.contains('\r') && !event.name.contains(['\r', '\n']), "{event:?}");
    }
});

/// The events up to the first problem, and the problem.
fn read(pieces: &[&[u8]]) -> (Vec<SseEvent>, Option<SseProblem>) {
    let mut parser = SseParser::new(LIMIT);
    let mut events = Vec::new();
    for piece in pieces {
        let taken = parser.push(piece, |event| {
            events.push(event);
            Ok::<(), SseProblem>(())
        });
        if let Err(problem) = taken {
            return (events, Some(problem));
        }
    }
    (events, None)
}
