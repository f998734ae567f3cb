//! What waits for a socket's reader. It is bounded by bytes: whoever makes a frame waits with it until
//! there is room, so that a slow reader holds up its own subscriptions and no memory.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// Bytes that wait for a slow reader. A frame that is longer waits alone.
const WAITING_BYTES: u32 = 1024 * 1024;
/// What a frame costs beside its text.
const FRAME_COST: u32 = 256;

/// A frame, and the room that it takes until it is sent.
pub(super) struct Waiting {
    pub(super) text: String,
    _room: OwnedSemaphorePermit,
}

/// Where subscriptions put their frames.
#[derive(Clone)]
pub(super) struct Outbox {
    // Without an end of its own: the room is the bound.
    frames: mpsc::UnboundedSender<Waiting>,
    room: Arc<Semaphore>,
}

impl Outbox {
    /// An outbox, and its other end.
    pub(super) fn new() -> (Self, mpsc::UnboundedReceiver<Waiting>) {
        let (frames, ready) = mpsc::unbounded_channel();
        (Self { frames, room: Arc::new(Semaphore::new(WAITING_BYTES as usize)) }, ready)
    }

    /// Puts a frame in when there is room for it. `None` when nobody reads any more.
    pub(super) async fn put(&self, text: String) -> Option<()> {
        let cost = u32::try_from(text.len()).unwrap_or(u32::MAX).saturating_add(FRAME_COST).min(WAITING_BYTES);
        let room = Arc::clone(&self.room).acquire_many_owned(cost).await.ok()?;
        self.frames.send(Waiting { text, _room: room }).ok()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn i17_what_waits_for_a_slow_reader_is_bounded_by_bytes() {
        for (length, fit) in [(0, 4096), (100 * 1024, 10), (600 * 1024, 1), (9 * 1024 * 1024, 1)] {
            let (outbox, mut ready) = Outbox::new();
            // Of the task's own time there is enough.
            let put = || tokio::task::unconstrained(outbox.put("x".repeat(length))).now_or_never();
            let waiting = std::iter::repeat_with(put).take_while(Option::is_some).count();
            assert_eq!(waiting, fit, "frames of {length} bytes");
            // Taken out it still has its room, until it is sent.
            let taken = ready.recv().await.unwrap();
            assert!(put().is_none());
            drop(taken);
            assert_eq!(put(), Some(Some(())));
            drop(ready);
        }
    }

    #[tokio::test]
    async fn who_puts_where_nobody_reads_is_told() {
        let (outbox, ready) = Outbox::new();
        assert_eq!(outbox.put("x".to_owned()).await, Some(()));
        drop(ready);
        assert_eq!(outbox.put("x".to_owned()).await, None);
    }
}
