//! Waiting for a gateway's answer, but not for long.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SendError, channel};
use std::time::Duration;

use anyhow::bail;
use tracing::{debug, warn};

use super::line::{Done, Line, Shared};
use crate::control::Reply;

/// How long to wait for the answer to a change. A gateway that takes longer learns of it all the same, or its successor
/// does.
const LIMIT: Duration = Duration::from_secs(1);

/// The answer to a change of the published ports, to come.
#[must_use = "a refusal is in it"]
pub struct Answer {
    what: String,
    reply: Receiver<Option<Reply>>,
    line: Option<Arc<Shared>>,
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Answer").field("what", &self.what).finish_non_exhaustive()
    }
}

impl Answer {
    /// One to `what` ("publishing …"), and who takes it. A refusal that nobody waits for any more is logged.
    pub(super) fn to(what: String) -> (Self, Done) {
        let (sender, reply) = channel();
        let name = what.clone();
        let done = move |reply| {
            if let Err(SendError(Some(Reply::Failed(why)))) = sender.send(reply) {
                warn!("{name}: the gateway refused: {why}");
            }
        };
        (Self { what, reply, line: None }, Box::new(done))
    }

    /// Says from whom it is to come; otherwise it will not come.
    pub(super) fn from(self, line: &Line) -> Self {
        Self { line: Some(line.shared()), ..self }
    }

    /// Waits until the gateway has done what it was asked, at most a second, and not at all while it is known to be slow. No
    /// answer is no error: a gateway that hangs, or ends meanwhile, has a successor, which knows the ports that there are.
    ///
    /// # Errors
    /// The gateway refused.
    pub fn wait(self) -> anyhow::Result<()> {
        let Some(line) = self.line else { return Ok(()) };
        let limit = if line.is_late() { Duration::ZERO } else { LIMIT };
        match self.reply.recv_timeout(limit) {
            Ok(Some(Reply::Failed(why))) => bail!("{}: the gateway refused: {why}", self.what),
            Ok(Some(_)) => {}
            Err(RecvTimeoutError::Timeout) => {
                // Who did not wait has learned nothing.
                if !limit.is_zero() {
                    line.set_late();
                }
                debug!("{}: the gateway does not answer yet", self.what);
            }
            Ok(None) | Err(RecvTimeoutError::Disconnected) => {
                debug!("{}: the gateway has ended; the next one is told", self.what);
            }
        }
        Ok(())
    }
}
