//! What follows from an attempt for the rollout of its group's policy. It is told after the settlement was written.

mod shadow;

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::attempt::{Attempter, Trial};
use crate::catalog::Catalog;
use crate::observe::Observer;

pub use self::shadow::{Difference, Shadows, Tally};

/// Watches how versions of policies do.
pub struct Rollouts {
    /// Those that run beside the ones in force.
    pub shadows: Arc<Shadows>,
}

impl Rollouts {
    /// Until `stop`.
    #[must_use]
    pub fn new(
        attempter: &Arc<Attempter>,
        catalog: &Arc<Catalog>,
        observer: &Arc<Observer>,
        stop: CancellationToken,
    ) -> Self {
        let shadows = Shadows::new(Arc::clone(attempter), Arc::clone(catalog), Arc::clone(observer), stop);
        Self { shadows: Arc::new(shadows) }
    }

    /// An attempt was settled; `trial` is what its group's shadow is to see.
    pub fn settled(&self, trial: Option<Box<Trial>>) {
        if let Some(trial) = trial {
            self.shadows.show(trial);
        }
    }
}
