//! What the sandboxes of a host share of the gate: so many places of a kind, of which no tenant gets more than half.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Places of one kind, of all tenants.
pub(crate) struct Places {
    all: Arc<Semaphore>,
    each: usize,
    tenants: Mutex<HashMap<u64, Weak<Semaphore>>>,
}

impl Places {
    pub(crate) fn new(most: usize) -> Self {
        Self { all: Arc::new(Semaphore::new(most)), each: (most / 2).max(1), tenants: Mutex::default() }
    }

    /// What a sandbox of a tenant may take of them: `own` at once, and with the tenant's others half of all.
    pub(crate) fn share(&self, tenant: u64, own: usize) -> Share {
        let mut tenants = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        // Tenants without a sandbox are forgotten.
        tenants.retain(|_, places| places.strong_count() > 0);
        let of_tenant = match tenants.get(&tenant).and_then(Weak::upgrade) {
            Some(places) => places,
            None => {
                let places = Arc::new(Semaphore::new(self.each));
                tenants.insert(tenant, Arc::downgrade(&places));
                places
            }
        };
        Share { own: Arc::new(Semaphore::new(own.max(1))), tenant: of_tenant, all: Arc::clone(&self.all) }
    }
}

/// What one sandbox may take.
#[derive(Debug, Clone)]
pub(crate) struct Share {
    own: Arc<Semaphore>,
    tenant: Arc<Semaphore>,
    all: Arc<Semaphore>,
}

/// A place that is taken, until this is dropped.
#[derive(Debug)]
pub(crate) struct Taken {
    _places: [OwnedSemaphorePermit; 3],
}

impl Share {
    /// Waits for a place: first for one of its own, then for one of its tenant's, and only then does it stand in
    /// the way of others.
    pub(crate) async fn take(&self) -> Option<Taken> {
        let own = Arc::clone(&self.own).acquire_owned().await.ok()?;
        let tenant = Arc::clone(&self.tenant).acquire_owned().await.ok()?;
        let all = Arc::clone(&self.all).acquire_owned().await.ok()?;
        Some(Taken { _places: [own, tenant, all] })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn g10_a_tenant_takes_half_of_the_places_and_no_more() {
        let places = Places::new(8);
        let (one, another, neighbour) = (places.share(1, 3), places.share(1, 3), places.share(2, 8));
        let takes = |share: &Share| {
            let share = share.clone();
            async move { tokio::time::timeout(Duration::from_millis(50), share.take()).await.ok().flatten() }
        };
        let mut held = Vec::new();
        for share in [&one, &one, &one] {
            held.push(takes(share).await.expect("its own"));
        }
        assert!(takes(&one).await.is_none(), "a sandbox has no more than its own");
        held.push(takes(&another).await.expect("the fourth of the tenant"));
        assert!(takes(&another).await.is_none(), "a tenant has no more than half");
        // The control: they were there for somebody else.
        let theirs: Vec<Taken> = [takes(&neighbour).await, takes(&neighbour).await].into_iter().flatten().collect();
        assert_eq!(theirs.len(), 2);
        held.pop();
        assert!(takes(&another).await.is_some());
    }

    #[tokio::test]
    async fn g10_a_tenant_that_comes_back_finds_what_its_other_sandboxes_left() {
        let places = Places::new(4);
        let one = places.share(1, 4);
        let held = [one.take().await.unwrap(), one.take().await.unwrap()];
        drop(one);
        // Nobody keeps the share, but what was taken of all is still taken.
        assert_eq!(places.all.available_permits(), 2);
        drop(held);
        assert_eq!(places.all.available_permits(), 4);
    }
}
