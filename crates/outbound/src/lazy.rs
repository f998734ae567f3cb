//! A client that is made at its first call: reading the system's certificates takes longer than all the rest
//! of a server's start, and most servers never call anybody.

use bailiwick_auth::authn::outbound::{Call, CallError, Calling, Outbound};
use tokio::sync::OnceCell;

use crate::client::{Client, Patience};

/// Makes calls as a [`Client`] does, and is one from the first on.
pub struct Lazy {
    patience: Patience,
    client: OnceCell<Client>,
}

impl Lazy {
    /// A client to be.
    pub fn new(patience: Patience) -> Self {
        Self { patience, client: OnceCell::new() }
    }

    async fn client(&self) -> Result<&Client, CallError> {
        let patience = self.patience;
        let made = self.client.get_or_try_init(|| async move {
            let made = tokio::task::spawn_blocking(move || Client::new(patience)).await;
            made.map_err(|_| CallError::Silent)?.map_err(|error| {
                tracing::error!(%error, "nobody can be called");
                CallError::Silent
            })
        });
        made.await
    }
}

impl Outbound for Lazy {
    fn call<'a>(&'a self, call: Call<'a>) -> Calling<'a> {
        Box::pin(async move { self.client().await?.call(call).await })
    }
}
