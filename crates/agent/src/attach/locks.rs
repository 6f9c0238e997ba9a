//! One caller at a time for each container.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::OwnedMutexGuard;

/// Locks by name; a name that nobody holds takes no memory.
#[derive(Debug, Default)]
pub(crate) struct Locks {
    held: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

impl Locks {
    /// Waits until nobody else holds `name`.
    pub(crate) async fn hold(&self, name: &str) -> OwnedMutexGuard<()> {
        let lock = {
            let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
            // Who waits holds a copy, so a lock with only ours is nobody's.
            held.retain(|_, l| Arc::strong_count(l) > 1);
            held.entry(name.to_owned()).or_default().clone()
        };
        lock.lock_owned().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_second_waits_and_nothing_stays() {
        let locks = Arc::new(Locks::default());
        let first = locks.hold("a").await;
        let other = locks.clone();
        let second = tokio::spawn(async move { other.hold("a").await });
        drop(locks.hold("b").await);
        assert!(!second.is_finished());
        drop(first);
        drop(second.await.expect("gets its turn"));
        drop(locks.hold("c").await);
        assert_eq!(locks.held.lock().expect("not poisoned").len(), 1);
    }
}
