//! Streams of lines: NDJSON, and server-sent events. The far side is not trusted with our memory.

use futures::StreamExt as _;
use futures::stream::BoxStream;
use reqwest::Response;

/// The longest line that is kept, bytes. An event holds at most one tool's cut output or one message.
const LONGEST: usize = 32 * 1024 * 1024;

/// A stream broke.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LineError {
    #[error("the stream broke")]
    Broken(#[source] reqwest::Error),
    #[error("the server sent a line that is too long")]
    TooLong,
}

/// The lines of an answer, as they come.
pub(crate) struct Lines {
    body: BoxStream<'static, Result<Vec<u8>, reqwest::Error>>,
    held: Vec<u8>,
    ended: bool,
}

impl Lines {
    pub(crate) fn new(response: Response) -> Self {
        let body = response.bytes_stream().map(|piece| piece.map(|bytes| bytes.to_vec())).boxed();
        Self { body, held: Vec::new(), ended: false }
    }

    /// The next line, without its end. `None` at the end of the stream.
    pub(crate) async fn next(&mut self) -> Result<Option<String>, LineError> {
        let mut looked = 0;
        loop {
            if let Some(end) = self.held[looked..].iter().position(|byte| *byte == b'\n') {
                let rest = self.held.split_off(looked + end + 1);
                let line = std::mem::replace(&mut self.held, rest);
                return Ok(Some(String::from_utf8_lossy(&line[..line.len() - 1]).trim_end_matches('\r').to_owned()));
            }
            looked = self.held.len();
            if looked > LONGEST {
                return Err(LineError::TooLong);
            }
            if self.ended {
                let line = std::mem::take(&mut self.held);
                return Ok((!line.is_empty()).then(|| String::from_utf8_lossy(&line).into_owned()));
            }
            match self.body.next().await {
                Some(Ok(piece)) => self.held.extend_from_slice(&piece),
                Some(Err(error)) => return Err(LineError::Broken(error.without_url())),
                None => self.ended = true,
            }
        }
    }
}

/// Server-sent events: their id and data.
pub(crate) struct Sse(Lines);

impl Sse {
    pub(crate) fn new(response: Response) -> Self {
        Self(Lines::new(response))
    }

    /// The next event that has data.
    pub(crate) async fn next(&mut self) -> Result<Option<(Option<String>, String)>, LineError> {
        let (mut id, mut data) = (None, String::new());
        while let Some(line) = self.0.next().await? {
            if line.is_empty() {
                if !data.is_empty() {
                    return Ok(Some((id, data)));
                }
                continue;
            }
            let (field, value) = line.split_once(':').unwrap_or((&line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "id" => id = Some(value.to_owned()),
                "data" => {
                    if !data.is_empty() {
                        data.push('\n');
                    }
                    data.push_str(value);
                }
                _ => {}
            }
        }
        Ok(None)
    }
}
