//! Waiting for a gateway's answer, but not for long.

use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use tracing::debug;

use super::line::{Line, Shared};
use super::place::Place;
use crate::control::Reply;

/// How long to wait for the answer to a change. A gateway that takes longer learns of it all the same, or its successor
/// does.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// The answer to a change of the published ports, to come.
#[derive(Debug)]
#[must_use = "a refusal is in it"]
pub struct Answer {
    what: String,
    /// Without a reply, the gateway has exited.
    place: Arc<Place<Option<Reply>>>,
    line: Option<Arc<Shared>>,
}

/// Who takes the answer to whoever waits for it.
pub(super) struct Deliver(Arc<Place<Option<Reply>>>);

impl Deliver {
    /// Gives the answer back if nobody waits for it any more.
    pub(super) fn to(self, reply: Option<Reply>) -> Option<Reply> {
        self.0.leave(reply).flatten()
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.place.give_up();
    }
}

impl Answer {
    /// One to `what` ("publishing …"), and who takes it.
    pub(super) fn to(what: String) -> (Self, Deliver) {
        let place = Arc::new(Place::new());
        (Self { what, place: Arc::clone(&place), line: None }, Deliver(place))
    }

    /// Says from whom it is to come; otherwise it will not come.
    pub(super) fn from(mut self, line: &Line) -> Self {
        self.line = Some(line.shared());
        self
    }

    /// Waits until the gateway has done what it was asked, at most a second, and not at all while it is known to be
    /// slow. No answer is no error: a gateway that hangs, or ends meanwhile, has a successor, which knows the ports
    /// that there are.
    ///
    /// # Errors
    /// The gateway refused.
    pub fn wait(self) -> anyhow::Result<()> {
        let Some(line) = &self.line else { return Ok(()) };
        let limit = if line.is_late() { Duration::ZERO } else { ANSWER_TIMEOUT };
        // From now on nobody waits, and whoever brings the answer learns that.
        match self.place.wait(limit) {
            Some(Some(Reply::Failed(why))) => {
                bail!("{}: the gateway refused: {why}", self.what)
            }
            Some(Some(_)) => {}
            Some(None) => {
                debug!("{}: the gateway has exited; the next one will be told", self.what);
            }
            None => {
                // Who did not wait has learned nothing.
                if !limit.is_zero() {
                    line.set_late();
                }
                debug!("{}: the gateway has not answered yet", self.what);
            }
        }
        Ok(())
    }
}
