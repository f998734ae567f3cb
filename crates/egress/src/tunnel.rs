//! Connections into which nobody looks beyond the name in their greeting.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

use crate::gate::Scene;
use crate::meter::{Activity, Metered};

/// How long a connection may stay silent.
const SILENT: Duration = Duration::from_secs(15 * 60);
/// What is copied at once, bytes.
const PIECE: usize = 64 * 1024;

/// A sandbox's side of a connection, whose bytes count, and when something last happened on it.
pub(crate) fn metered<N>(scene: &Scene, near: N) -> (Metered<N>, Arc<Activity>) {
    let near = Metered::new(near, Arc::clone(&scene.meter));
    let activity = near.activity();
    (near, activity)
}

/// Copies both ways until both have said all, the sandbox has used up its bytes, or nobody says anything.
pub(crate) async fn copy<N, F>(activity: &Activity, mut near: N, mut far: F)
where
    N: AsyncRead + AsyncWrite + Unpin,
    F: AsyncRead + AsyncWrite + Unpin,
{
    tokio::select! {
        _ = tokio::io::copy_bidirectional_with_sizes(&mut near, &mut far, PIECE, PIECE) => {}
        () = idle(activity) => {}
    }
}

/// Comes back once a stream has been silent for too long.
pub(crate) async fn idle(activity: &Activity) {
    loop {
        let silent = activity.idle();
        if silent >= SILENT {
            return;
        }
        tokio::time::sleep(SILENT - silent).await;
    }
}
