//! Splits a byte stream into server-sent events (WHATWG HTML, section 9.2), whatever the pieces
//! in which it arrives. It holds at most one event and refuses a longer one; it never guesses at
//! text that is not UTF-8.

/// One event: its name (empty if it has none) and its data lines, joined.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SseEvent {
    pub(crate) name: String,
    pub(crate) data: String,
}

/// Why the stream was not read on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SseProblem {
    TooLong,
    NotUtf8,
}

/// The parser's state between two pieces.
#[derive(Clone, Debug)]
pub(crate) struct SseParser {
    line: Vec<u8>,
    event: SseEvent,
    has_data: bool,
    after_cr: bool,
    at_start: bool,
    max_event: usize,
}

impl SseParser {
    pub(crate) fn new(max_event: usize) -> Self {
        Self {
            line: Vec::new(),
            event: SseEvent::default(),
            has_data: false,
            after_cr: false,
            at_start: true,
            max_event,
        }
    }

    /// Takes the next piece and hands each event that it completes to `take`.
    pub(crate) fn push<E: From<SseProblem>>(
        &mut self,
        mut piece: &[u8],
        mut take: impl FnMut(SseEvent) -> Result<(), E>,
    ) -> Result<(), E> {
        while !piece.is_empty() {
            if std::mem::take(&mut self.after_cr) && piece[0] == b'\n' {
                piece = &piece[1..];
                continue;
            }
            let end = piece.iter().position(|&b| b == b'\n' || b == b'\r');
            let rest = &piece[..end.unwrap_or(piece.len())];
            if self.line.len() + rest.len() + self.event.data.len() > self.max_event {
                return Err(SseProblem::TooLong.into());
            }
            self.line.extend_from_slice(rest);
            let Some(end) = end else { return Ok(()) };
            self.after_cr = piece[end] == b'\r';
            piece = &piece[end + 1..];
            if let Some(event) = self.end_line()? {
                take(event)?;
            }
        }
        Ok(())
    }

    fn end_line(&mut self) -> Result<Option<SseEvent>, SseProblem> {
        let mut bytes = self.line.as_slice();
        if std::mem::take(&mut self.at_start) {
            bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
        }
        let line = std::str::from_utf8(bytes).map_err(|_| SseProblem::NotUtf8)?;
        let complete = if line.is_empty() {
            let event = std::mem::take(&mut self.event);
            std::mem::take(&mut self.has_data).then_some(event)
        } else {
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "event" => value.clone_into(&mut self.event.name),
                "data" => {
                    if std::mem::replace(&mut self.has_data, true) {
                        self.event.data.push('\n');
                    }
                    self.event.data.push_str(value);
                }
                // Comments, ids and retry hints: a model's answer cannot be resumed.
                _ => {}
            }
            None
        };
        self.line.clear();
        Ok(complete)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(pieces: &[&[u8]], max: usize) -> Result<Vec<SseEvent>, SseProblem> {
        let mut parser = SseParser::new(max);
        let mut events = Vec::new();
        for piece in pieces {
            parser.push(piece, |event| {
                events.push(event);
                Ok::<(), SseProblem>(())
            })?;
        }
        Ok(events)
    }

    fn event(name: &str, data: &str) -> SseEvent {
        SseEvent { name: name.into(), data: data.into() }
    }

    #[test]
    fn names_data_comments_and_line_ends_are_read() {
        let text = "\u{feff}: hi\nevent: a\r\ndata: 1\rdata:2\n\nid: 7\n\ndata\n\ndata: last";
        assert_eq!(parse(&[text.as_bytes()], 100).unwrap(), vec![event("a", "1\n2"), event("", "")]);
    }

    #[test]
    fn a_long_event_is_refused_and_one_that_fits_is_not() {
        let fits = format!("data: {}\n\n", "x".repeat(50));
        assert_eq!(parse(&[fits.as_bytes()], 60).unwrap().len(), 1);
        assert_eq!(parse(&[fits.as_bytes()], 40), Err(SseProblem::TooLong));
        let lines = "data: xxxxxxxxxx\n".repeat(10);
        assert_eq!(parse(&[lines.as_bytes()], 60), Err(SseProblem::TooLong));
    }

    #[test]
    fn bytes_that_are_not_utf8_are_refused() {
        assert_eq!(parse(&[b"data: \xff\n\n"], 60), Err(SseProblem::NotUtf8));
    }

    proptest! {
        #[test]
        fn the_pieces_do_not_matter(
            text in "((event|data|x): ?[a-zü€😀:]{0,6}|:|)(\r\n|\n|\r)",
            repeat in 1usize..6,
            cuts in proptest::collection::vec(0usize..200, 0..12),
        ) {
            let bytes = text.repeat(repeat).into_bytes();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|c| c % (bytes.len() + 1)).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|w| &bytes[w[0]..w[1]]).collect();
            prop_assert_eq!(parse(&pieces, 10_000), parse(&[&bytes], 10_000));
        }

        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = parse(&[&bytes], 64);
        }
    }
}
