//! One streamed call: connect, try again where that is honest, read, stop. It knows HTTP and
//! server-sent events; what the events mean is a [`Decode`]'s business.
//!
//! It must never try again after a piece of the answer has come, keep a connection after the caller
//! canceled or dropped the stream, or wait or read without a bound.

use std::collections::VecDeque;

use bailiwick_outbound::{Answer, Bounds, Reach, SendError, Transport, Waited};
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt as _};
use http::header::{CONTENT_TYPE, HeaderMap};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::failure::{Again, Failure};
use crate::json::JsonProblem;
use crate::scrub::Scrub;
use crate::sse::{SseEvent, SseParser, SseProblem};
use crate::{Event, Limit, ModelError, Policy, TimeoutPhase};

/// Turns a provider's events into ours. A clone of the untouched decoder serves each try.
pub(crate) trait Decode: Clone + Send + 'static {
    /// Takes one event.
    fn read(&mut self, event: &SseEvent, out: &mut VecDeque<Event>) -> Result<(), DecodeError>;

    /// The connection ended. A decoder that has everything but the formal end may finish now.
    fn end(&mut self, _out: &mut VecDeque<Event>) -> Result<(), DecodeError> {
        Ok(())
    }
}

/// Why a provider's event was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum DecodeError {
    /// It does not follow the API.
    Protocol(&'static str),
    /// It passes a bound.
    TooLarge(Limit),
    /// It is the provider's own report of an error, not scrubbed yet.
    Reported { kind: String, message: String },
}

impl From<JsonProblem> for DecodeError {
    fn from(problem: JsonProblem) -> Self {
        match problem {
            JsonProblem::NotJson => Self::Protocol("an event that is not the JSON it should be"),
            JsonProblem::TooMany => Self::TooLarge(Limit::EventValues),
        }
    }
}

impl From<Limit> for DecodeError {
    fn from(limit: Limit) -> Self {
        Self::TooLarge(limit)
    }
}

impl From<SseProblem> for DecodeError {
    fn from(problem: SseProblem) -> Self {
        match problem {
            SseProblem::TooLong => Self::TooLarge(Limit::EventBytes),
            SseProblem::NotUtf8 => Self::Protocol("an event that is not UTF-8"),
        }
    }
}

/// Everything that a call needs.
pub(crate) struct Call<D> {
    pub(crate) transport: Transport,
    pub(crate) reach: Reach,
    pub(crate) url: Url,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// The response header with the provider's id of the call.
    pub(crate) request_id_header: &'static str,
    pub(crate) decoder: D,
    pub(crate) policy: Policy,
    pub(crate) scrub: Scrub,
    pub(crate) cancel: CancellationToken,
}

impl<D: Decode> Call<D> {
    /// The call as a stream. Nothing is sent before it is polled; dropping it ends the connection.
    pub(crate) fn stream(self) -> BoxStream<'static, Result<Event, ModelError>> {
        let running = Running {
            decoder: self.decoder.clone(),
            sse: SseParser::new(self.policy.limits.event_bytes),
            call: self,
            deadline: None,
            tried: 0,
            open: None,
            queue: VecDeque::new(),
            handed_out: Handed::Nothing,
            end: End::NotYet,
        };
        stream::unfold(running, |mut running| async move { running.next().await.map(|event| (event, running)) }).boxed()
    }
}

/// A call on its way.
struct Running<D> {
    call: Call<D>,
    decoder: D,
    sse: SseParser,
    deadline: Option<Instant>,
    tried: u32,
    open: Option<Open>,
    queue: VecDeque<Event>,
    handed_out: Handed,
    end: End,
}

/// An answer that is coming in.
struct Open {
    answer: Answer,
    request_id: Option<String>,
}

/// Whether the caller has seen a part of the answer, after which there is no other try.
#[derive(PartialEq)]
enum Handed {
    Nothing,
    Something,
}

/// How the stream ends.
enum End {
    NotYet,
    /// With this error, once the queue is empty.
    Failed(ModelError),
    Over,
}

impl<D: Decode> Running<D> {
    async fn next(&mut self) -> Option<Result<Event, ModelError>> {
        loop {
            if matches!(self.end, End::Over) {
                return None;
            }
            if self.call.cancel.is_cancelled() {
                return Some(Err(self.close(ModelError::Canceled)));
            }
            if let Some(event) = self.queue.pop_front() {
                self.handed_out = Handed::Something;
                if matches!(event, Event::Finished(_)) {
                    self.finish();
                }
                return Some(Ok(event));
            }
            if let End::Failed(error) = std::mem::replace(&mut self.end, End::NotYet) {
                return Some(Err(self.close(error)));
            }
            if let Err(error) = self.advance().await {
                self.open = None;
                self.end = End::Failed(error);
            }
        }
    }

    fn close(&mut self, error: ModelError) -> ModelError {
        tracing::debug!(code = error.code(), tries = self.tried, "model call failed");
        self.open = None;
        self.queue.clear();
        self.end = End::Over;
        error
    }

    /// Ends a complete answer. The HTTP client reads what has already arrived of the formal end,
    /// so that the connection serves the next call; nothing is waited for.
    fn finish(&mut self) {
        self.open = None;
        self.queue.clear();
        self.end = End::Over;
    }

    /// Moves on by one step, within the total time and until canceled.
    async fn advance(&mut self) -> Result<(), ModelError> {
        let total = self.call.policy.timeouts.total;
        let deadline = *self.deadline.get_or_insert_with(|| Instant::now() + total);
        let cancel = self.call.cancel.clone();
        tokio::select! {
            biased;
            () = cancel.cancelled() => Err(ModelError::Canceled),
            () = tokio::time::sleep_until(deadline) => Err(ModelError::TimedOut { phase: TimeoutPhase::Total }),
            outcome = self.step() => outcome,
        }
    }

    async fn step(&mut self) -> Result<(), ModelError> {
        let outcome = if self.open.is_some() { self.read().await } else { self.connect().await };
        let Err(failure) = outcome else { return Ok(()) };
        self.open = None;
        if self.handed_out == Handed::Something || !self.queue.is_empty() {
            return Err(failure.error);
        }
        let Again::After(asked) = failure.again else {
            return Err(failure.error);
        };
        let Some(pause) = self.call.policy.retry.pause(self.tried, asked) else {
            return Err(failure.error);
        };
        tracing::debug!(code = failure.error.code(), tried = self.tried, ?pause, "model call will be tried again");
        self.decoder = self.call.decoder.clone();
        self.sse = SseParser::new(self.call.policy.limits.event_bytes);
        tokio::time::sleep(pause).await;
        Ok(())
    }

    async fn connect(&mut self) -> Result<(), Failure> {
        self.tried += 1;
        let call = &self.call;
        let request = bailiwick_outbound::Request::post(call.url.clone(), call.body.clone());
        let (timeouts, limits) = (call.policy.timeouts, call.policy.limits);
        let bounds = Bounds {
            first_byte: timeouts.first_byte,
            between: timeouts.idle,
            whole: timeouts.total,
            body: limits.response_bytes,
        };
        let sent = call.transport.send(request.with(call.headers.clone()), &call.reach, bounds).await;
        let answer = sent.map_err(failed)?;
        let status = answer.status();
        tracing::debug!(status, tried = self.tried, "model provider answered");
        if status != 200 {
            let headers = answer.headers().clone();
            let body = answer.beginning(MAX_ERROR_BODY).await.map_err(failed)?;
            return Err(Failure::of_status(status, &headers, &String::from_utf8_lossy(&body), &self.call.scrub));
        }
        let header = |name| answer.headers().get(name).and_then(|value| value.to_str().ok());
        if !header(CONTENT_TYPE.as_str()).is_some_and(|kind| kind.trim_start().starts_with("text/event-stream")) {
            return Err(ModelError::Protocol { what: "something else than an event stream" }.into());
        }
        let request_id = header(self.call.request_id_header).and_then(|id| self.call.scrub.identifier(id));
        self.open = Some(Open { answer, request_id });
        Ok(())
    }

    async fn read(&mut self) -> Result<(), Failure> {
        let Some(open) = self.open.as_mut() else {
            return Ok(());
        };
        let chunk = match open.answer.chunk().await {
            Ok(Some(chunk)) => chunk,
            Ok(None) | Err(SendError::Broken) => {
                let ended = self.decoder.end(&mut self.queue);
                ended.map_err(|error| self.failure(error))?;
                self.mark_request_id();
                let finished = matches!(self.queue.back(), Some(Event::Finished(_)));
                return if finished { Ok(()) } else { Err(Failure::again(ModelError::Interrupted)) };
            }
            Err(error) => return Err(failed(error)),
        };
        let (decoder, queue) = (&mut self.decoder, &mut self.queue);
        let outcome = self.sse.push(&chunk, |event| {
            // After the end of the answer there is nothing more to say.
            if matches!(queue.back(), Some(Event::Finished(_))) { Ok(()) } else { decoder.read(&event, queue) }
        });
        self.mark_request_id();
        outcome.map_err(|error| self.failure(error))
    }

    fn failure(&self, error: DecodeError) -> Failure {
        match error {
            DecodeError::Protocol(what) => ModelError::Protocol { what }.into(),
            DecodeError::TooLarge(limit) => ModelError::TooLarge { limit }.into(),
            DecodeError::Reported { kind, message } => Failure::of_report(&kind, &message, &self.call.scrub),
        }
    }

    fn mark_request_id(&mut self) {
        if let (Some(open), Some(Event::Finished(done))) = (&self.open, self.queue.back_mut()) {
            done.request_id.clone_from(&open.request_id);
        }
    }
}

/// What a call that gave no answer is, and whether another try has a chance.
fn failed(error: SendError) -> Failure {
    match error {
        SendError::Unreachable => Failure::again(ModelError::Unreachable),
        SendError::Broken => Failure::again(ModelError::Interrupted),
        SendError::TimedOut(Waited::Connect) => Failure::again(ModelError::TimedOut { phase: TimeoutPhase::Connect }),
        SendError::TimedOut(waited) => ModelError::TimedOut {
            phase: match waited {
                Waited::Connect => TimeoutPhase::Connect,
                Waited::FirstByte => TimeoutPhase::FirstByte,
                Waited::Between => TimeoutPhase::Idle,
                Waited::Whole => TimeoutPhase::Total,
            },
        }
        .into(),
        // The configured name leads where no provider is; it would again.
        SendError::Address | SendError::Network => {
            tracing::error!(%error, "a model's base_url cannot be called");
            ModelError::Unreachable.into()
        }
        SendError::TooLong => ModelError::TooLarge { limit: Limit::ResponseBytes }.into(),
    }
}

const MAX_ERROR_BODY: usize = 64 * 1024;
