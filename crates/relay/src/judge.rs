//! Whether connections that the event handler has begun may go on, asked anew.

use std::fmt;
use std::sync::Arc;

use crate::traffic::Opened;

/// What somebody calls a rule.
pub type RuleName = Arc<str>;

/// Says whether a connection may go on. Every thread that moves bytes asks it, so it may only wait for others that do not
/// wait for these threads.
#[derive(Clone)]
pub struct Judge(Arc<Ask>);

type Ask = dyn Fn(&Opened) -> Option<RuleName> + Send + Sync;

impl Judge {
    /// Asks `denied_by`, which returns the rule that forbids a connection; `None` if it may go on.
    pub fn new(denied_by: impl Fn(&Opened) -> Option<RuleName> + Send + Sync + 'static) -> Self {
        Self(Arc::new(denied_by))
    }

    /// The rule that forbids this connection; `None` if it may go on.
    pub(crate) fn denied_by(&self, opened: &Opened) -> Option<RuleName> {
        (self.0)(opened)
    }
}

impl fmt::Debug for Judge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Judge").finish_non_exhaustive()
    }
}
