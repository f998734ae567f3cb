//! The scripted model: answers from a YAML file, for the demo, for tests and for benches.
//!
//! It keeps no state. Which step answers follows from the conversation alone, so that sessions
//! survive a restart and any number of them share one script. It must never reach out: no
//! network, no clock but its delays, no randomness.

mod answer;
mod script;
mod template;

use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, BoxStream, StreamExt as _};
use tokio_util::sync::CancellationToken;

pub use script::{Script, ScriptError};

use crate::{Event, ModelError, Request};

/// Why a script has no answer to a conversation. Places count from 1, as a reader of the file
/// does.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScriptFailure {
    /// No entry fits.
    #[error("no entry of the script fits turn {turn}, step {step}; add one with `default: true`")]
    NoEntry {
        /// The user messages so far.
        turn: usize,
        /// The model call in the turn.
        step: usize,
    },
    /// The entry that fits has fewer steps.
    #[error("entry {entry} of the script has {steps} steps and step {step} was asked for; add it, or set `repeat`")]
    NoStep {
        /// The entry in the file.
        entry: usize,
        /// Its steps.
        steps: usize,
        /// The step that is missing.
        step: usize,
    },
}

/// A script as a provider.
#[derive(Clone, Debug)]
pub(crate) struct Scripted {
    script: Arc<Script>,
}

impl Scripted {
    pub(crate) fn new(script: Script) -> Self {
        Self { script: Arc::new(script) }
    }

    pub(crate) fn stream(
        &self,
        request: &Request,
        cancel: CancellationToken,
    ) -> BoxStream<'static, Result<Event, ModelError>> {
        let answer = match answer::answer(&self.script, request) {
            Ok(answer) => answer,
            Err(failure) => return stream::iter([Err(ModelError::Script(failure))]).boxed(),
        };
        let pieces = answer.events.into_iter().map(Ok).chain(answer.failure.map(Err));
        paced(pieces.collect::<Vec<_>>(), answer.delay, cancel)
    }
}

/// Plays events with a pause before each, until canceled.
fn paced(
    pieces: Vec<Result<Event, ModelError>>,
    delay: Duration,
    cancel: CancellationToken,
) -> BoxStream<'static, Result<Event, ModelError>> {
    stream::unfold((pieces.into_iter(), cancel), move |(mut pieces, cancel)| async move {
        let piece = pieces.next()?;
        let waited = async {
            if !delay.is_zero() {
                tokio::time::sleep(delay).await;
            }
        };
        tokio::select! {
            biased;
            () = cancel.cancelled() => Some((Err(ModelError::Canceled), (Vec::new().into_iter(), cancel))),
            () = waited => Some((piece, (pieces, cancel))),
        }
    })
    .boxed()
}
