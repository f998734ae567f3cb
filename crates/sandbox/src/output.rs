//! The output of a command: its end is kept, the rest is counted.
//!
//! Every backend collects through here. Memory is constant whatever a command
//! prints: at most so many lines, bytes and characters a line are held, and
//! what falls out is gone while the command still runs. The text is never
//! interpreted.

use std::collections::VecDeque;

/// How much of an output stream is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutputLimits {
    /// Lines.
    pub lines: usize,
    /// Bytes of text, line ends included.
    pub bytes: usize,
    /// Characters of one line; the rest of the line is left out.
    pub line_chars: usize,
}

impl Default for OutputLimits {
    fn default() -> Self {
        Self { lines: 2000, bytes: 50 * 1024, line_chars: 2000 }
    }
}

/// Collects one stream.
#[derive(Debug)]
pub struct Collector {
    limits: OutputLimits,
    /// Finished lines, oldest first, each with its line end.
    kept: VecDeque<String>,
    kept_bytes: usize,
    /// The start of the line that is being written.
    open: Vec<u8>,
    /// Bytes of that line, also those that `open` has no room for.
    open_bytes: u64,
    total_bytes: u64,
    total_lines: u64,
    shortened: u64,
}

/// What was kept of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Captured {
    /// The text as UTF-8, invalid bytes replaced. If something was left out,
    /// its first line says so.
    pub text: String,
    /// Whether something was left out.
    pub truncated: bool,
    /// Bytes that the command wrote.
    pub total_bytes: u64,
    /// Lines that the command wrote; an unfinished last line counts.
    pub total_lines: u64,
}

impl Collector {
    /// An empty collector.
    #[must_use]
    pub fn new(limits: OutputLimits) -> Self {
        Self {
            limits,
            kept: VecDeque::new(),
            kept_bytes: 0,
            open: Vec::new(),
            open_bytes: 0,
            total_bytes: 0,
            total_lines: 0,
            shortened: 0,
        }
    }

    /// Takes the next bytes of the stream.
    pub fn write(&mut self, bytes: &[u8]) {
        self.total_bytes = self.total_bytes.saturating_add(bytes.len() as u64);
        let mut rest = bytes;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let (line, after) = rest.split_at(end);
            self.extend(line);
            self.finish_line(LineEnd::Newline);
            rest = after.get(1..).unwrap_or_default();
        }
        self.extend(rest);
    }

    /// Ends the stream.
    #[must_use]
    pub fn finish(mut self) -> Captured {
        if self.open_bytes > 0 {
            self.finish_line(LineEnd::None);
        }
        let kept_lines = self.kept.len() as u64;
        let omitted = self.total_lines.saturating_sub(kept_lines);
        let truncated = omitted > 0 || self.shortened > 0;
        let mut text = String::with_capacity(self.kept_bytes + 128);
        if truncated {
            let (lines, bytes) = (self.total_lines, self.total_bytes);
            text.push_str(&format!(
                "[output truncated: {lines} lines, {bytes} bytes in total; \
                 {omitted} lines left out before this, {} lines shortened]\n",
                self.shortened
            ));
        }
        text.extend(self.kept);
        Captured { text, truncated, total_bytes: self.total_bytes, total_lines: self.total_lines }
    }

    /// Bytes of the open line that can matter: no character is longer than four.
    fn open_limit(&self) -> usize {
        self.limits.line_chars.saturating_mul(4)
    }

    fn extend(&mut self, bytes: &[u8]) {
        self.open_bytes = self.open_bytes.saturating_add(bytes.len() as u64);
        let room = self.open_limit().saturating_sub(self.open.len());
        self.open.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
    }

    fn finish_line(&mut self, end: LineEnd) {
        self.total_lines = self.total_lines.saturating_add(1);
        let whole = self.open_bytes <= self.open.len() as u64;
        let text = String::from_utf8_lossy(&self.open);
        let cut = text.char_indices().nth(self.limits.line_chars).map(|(at, _)| at);
        let mut line = cut.and_then(|at| text.get(..at)).unwrap_or(&text).to_owned();
        // One line alone may be more than everything that is to be kept.
        let room = self.limits.bytes.saturating_sub(1);
        let fits = line.floor_char_boundary(room.min(line.len()));
        let short = cut.is_some() || !whole || fits < line.len();
        line.truncate(fits);
        if let LineEnd::Newline = end {
            line.push('\n');
        }
        drop(text);
        self.open.clear();
        self.open_bytes = 0;
        self.kept_bytes += line.len();
        self.shortened += u64::from(short);
        self.kept.push_back(line);
        while self.kept.len() > self.limits.lines || self.kept_bytes > self.limits.bytes {
            let Some(oldest) = self.kept.pop_front() else {
                break;
            };
            self.kept_bytes -= oldest.len();
        }
    }
}

enum LineEnd {
    Newline,
    None,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn capture(limits: OutputLimits, chunks: &[&[u8]]) -> Captured {
        let mut collector = Collector::new(limits);
        for chunk in chunks {
            collector.write(chunk);
        }
        collector.finish()
    }

    #[test]
    fn short_output_is_kept_as_it_is() {
        let captured = capture(OutputLimits::default(), &[b"one\ntw", b"o"]);
        assert_eq!(captured.text, "one\ntwo");
        assert_eq!((captured.total_lines, captured.total_bytes), (2, 7));
        assert!(!captured.truncated);
        assert_eq!(capture(OutputLimits::default(), &[]).text, "");
    }

    #[test]
    fn the_tail_is_kept_and_the_first_line_says_what_is_missing() {
        let limits = OutputLimits { lines: 2, bytes: 100, line_chars: 10 };
        let captured = capture(limits, &[b"1\n2\n3\n4\n"]);
        let (first, rest) = captured.text.split_once('\n').unwrap();
        assert_eq!(
            first,
            "[output truncated: 4 lines, 8 bytes in total; 2 lines left out before this, 0 lines shortened]"
        );
        assert_eq!(rest, "3\n4\n");
    }

    #[test]
    fn the_byte_limit_drops_whole_lines() {
        let limits = OutputLimits { lines: 100, bytes: 6, line_chars: 10 };
        assert!(capture(limits, &[b"abc\ndef\nxy\n"]).text.ends_with("]\nxy\n"));
        let one = capture(limits, &[b"0123456789"]);
        assert!(one.text.ends_with("]\n01234") && one.truncated);
    }

    #[test]
    fn a_long_line_is_cut_at_characters() {
        let limits = OutputLimits { lines: 10, bytes: 1000, line_chars: 3 };
        let captured = capture(limits, &["äöüß\nok\n".as_bytes()]);
        assert!(captured.text.ends_with("]\näöü\nok\n"), "{}", captured.text);
        assert!(captured.truncated);
    }

    #[test]
    fn characters_split_between_chunks_survive() {
        let bytes = "a€b".as_bytes();
        let captured = capture(OutputLimits::default(), &[&bytes[..2], &bytes[2..]]);
        assert_eq!(captured.text, "a€b");
        assert_eq!(capture(OutputLimits::default(), &[b"a\xffb"]).text, "a\u{fffd}b");
    }

    proptest! {
        #[test]
        fn the_limits_hold_and_chunks_do_not_matter(
            bytes in proptest::collection::vec(prop_oneof![Just(b'\n'), any::<u8>()], 0..600),
            cuts in proptest::collection::vec(0_usize..600, 0..6),
            lines in 1_usize..20, size in 1_usize..200, line_chars in 1_usize..40,
        ) {
            let limits = OutputLimits { lines, bytes: size, line_chars };
            let whole = capture(limits, &[&bytes]);
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.sort_unstable();
            let mut collector = Collector::new(limits);
            let mut from = 0;
            for cut in cuts.into_iter().chain([bytes.len()]) {
                collector.write(&bytes[from..cut]);
                from = cut;
                prop_assert!(collector.kept_bytes <= size && collector.kept.len() <= lines);
                prop_assert!(collector.open.len() <= line_chars * 4);
            }
            let captured = collector.finish();
            prop_assert_eq!(&captured, &whole);
            let body = if captured.truncated {
                captured.text.split_once('\n').unwrap().1
            } else {
                &captured.text
            };
            prop_assert!(body.len() <= size && body.lines().count() <= lines);
            prop_assert!(body.lines().all(|line| line.chars().count() <= line_chars));
            if !captured.truncated {
                prop_assert_eq!(body, String::from_utf8_lossy(&bytes));
            }
        }
    }
}
