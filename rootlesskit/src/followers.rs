//! Who follows the flow log: one look at it for all of them, several times a second while there is somebody.
//!
//! A look is a request to the gateway process like any other, so a gateway that was replaced is looked at as well, and one
//! that hangs is killed as ever. A follower that does not read loses lines; nobody waits for it.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use api::flows::FlowEvent;
use api::server::{BackendError, LineWriter, Lines, line};
use tokio::sync::{Notify, oneshot};

use crate::drivers::FlowLog;

/// Followers at a time.
pub(crate) const MAX_FOLLOWERS: usize = 16;
/// Time between two looks. The gateway process keeps 4,096 records between them.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

type Begun = oneshot::Sender<anyhow::Result<()>>;

pub(crate) struct Followers {
    ask: RefCell<FlowLog>,
    writers: RefCell<Vec<LineWriter>>,
    /// To be told by the next look that everything is recorded from now on.
    new: RefCell<Vec<Begun>>,
    came: Notify,
    looks: Cell<bool>,
    ended: Cell<bool>,
}

impl Followers {
    pub(crate) fn new(ask: FlowLog) -> Self {
        Self {
            ask: RefCell::new(ask),
            writers: RefCell::default(),
            new: RefCell::default(),
            came: Notify::new(),
            looks: Cell::new(false),
            ended: Cell::new(false),
        }
    }

    /// Gives the lines of a new follower, and when it begins: what ends after that is among them. Call within a
    /// `LocalSet`. Whoever drops the lines does not follow any more.
    pub(crate) fn follow(
        self: &Rc<Self>,
    ) -> Result<(Lines, oneshot::Receiver<anyhow::Result<()>>), BackendError> {
        self.forget_closed();
        if self.writers.borrow().len() >= MAX_FOLLOWERS {
            return Err(BackendError::ManyFollowers);
        }
        let (writer, lines) = Lines::new();
        let (begun, begins) = oneshot::channel();
        if self.ended.get() {
            // The line writer is dropped here, which ends the answer.
            drop(begun.send(Ok(())));
            return Ok((lines, begins));
        }
        self.writers.borrow_mut().push(writer);
        self.new.borrow_mut().push(begun);
        if self.looks.replace(true) {
            self.came.notify_one();
        } else {
            tokio::task::spawn_local(Rc::clone(self).look());
        }
        Ok((lines, begins))
    }

    /// Ends all answers.
    pub(crate) fn end(&self) {
        self.ended.set(true);
        self.writers.borrow_mut().clear();
        // Whoever looks has nothing to wait for.
        self.came.notify_one();
    }

    fn forget_closed(&self) {
        self.writers.borrow_mut().retain(|writer| !writer.is_closed());
    }

    /// Looks as long as somebody follows.
    async fn look(self: Rc<Self>) {
        loop {
            self.forget_closed();
            if self.writers.borrow().is_empty() {
                break;
            }
            let new = self.new.take();
            // A gateway that hangs is killed, so there is always an answer.
            let asked = (self.ask.borrow_mut())(true);
            let answer = asked.await.unwrap_or_else(|e| Err(e.into()));
            let failure = match answer {
                Ok(events) => {
                    self.tell(&events);
                    None
                }
                Err(e) => {
                    tracing::debug!("cannot look at the flow log: {e:#}");
                    Some(format!("{e:#}"))
                }
            };
            for begun in new {
                let outcome = failure.clone().map_or(Ok(()), |e| Err(anyhow::Error::msg(e)));
                // Perhaps it is gone again.
                drop(begun.send(outcome));
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK_INTERVAL) => {}
                () = self.came.notified() => {}
            }
        }
        self.looks.set(false);
        // Nobody waits for the answer.
        drop((self.ask.borrow_mut())(false));
    }

    fn tell(&self, events: &[FlowEvent]) {
        let writers = self.writers.borrow();
        for event in events {
            if let FlowEvent::Missed { count } = event {
                writers.iter().for_each(|writer| writer.miss(*count));
            } else {
                let line = line(event);
                writers.iter().for_each(|writer| writer.write(&line));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use http_body_util::BodyExt as _;
    use tokio::task::LocalSet;

    use super::*;

    /// Looks, by whether they ended it.
    type Looks = Rc<RefCell<Vec<bool>>>;

    fn missed(count: u64) -> FlowEvent {
        FlowEvent::Missed { count }
    }

    fn restarted(n: usize) -> FlowEvent {
        FlowEvent::Restarted { time: n.to_string() }
    }

    /// Followers of a log with these answers, then empty ones.
    fn followers(answers: Vec<anyhow::Result<Vec<FlowEvent>>>) -> (Rc<Followers>, Looks) {
        let looks = Looks::default();
        let (seen, mut answers) = (Rc::clone(&looks), VecDeque::from(answers));
        let ask = move |follow| {
            seen.borrow_mut().push(follow);
            let (reply, answer) = oneshot::channel();
            reply.send(answers.pop_front().unwrap_or_else(|| Ok(Vec::new()))).unwrap();
            answer
        };
        (Rc::new(Followers::new(Box::new(ask))), looks)
    }

    async fn until(holds: impl Fn() -> bool) {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn next(lines: &mut Lines) -> String {
        let frame = lines.frame().await.unwrap().unwrap();
        String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap()
    }

    #[tokio::test]
    async fn all_followers_get_all_lines_and_the_last_one_ends_the_looks() {
        let answers = vec![
            Ok(vec![restarted(1)]),
            Err(anyhow::anyhow!("it is being replaced")),
            Ok(vec![restarted(2), missed(7)]),
        ];
        let (followers, looks) = followers(answers);
        let test = async {
            let (mut one, begins) = followers.follow().unwrap();
            begins.await.unwrap().unwrap();
            assert!(next(&mut one).await.contains("\"1\""));
            let (two, begins) = followers.follow().unwrap();
            let error = begins.await.unwrap().unwrap_err().to_string();
            assert_eq!(error, "it is being replaced");
            drop(two);
            let (mut three, begins) = followers.follow().unwrap();
            begins.await.unwrap().unwrap();
            for lines in [&mut one, &mut three] {
                let lines = next(lines).await;
                assert!(lines.contains("\"2\"") && lines.contains("\"count\":7"), "{lines}");
            }
            drop(one);
            let before = looks.borrow().len();
            until(|| looks.borrow().len() > before + 2).await;
            assert!(looks.borrow().iter().all(|follow| *follow));
            drop(three);
            until(|| looks.borrow().last() == Some(&false)).await;
            assert!(!followers.looks.get());
            // Somebody may come again.
            let (_four, begins) = followers.follow().unwrap();
            begins.await.unwrap().unwrap();
        };
        LocalSet::new().run_until(test).await;
    }

    #[tokio::test]
    async fn a_follower_that_does_not_read_holds_up_nobody() {
        const EACH: usize = api::server::MAX_LINES / 2;
        let many = |_| Ok((0..EACH).map(restarted).collect());
        let (followers, _) = followers((0..4).map(many).collect());
        let test = async {
            let (idle, _) = followers.follow().unwrap();
            let (mut busy, _) = followers.follow().unwrap();
            let mut seen = 0;
            while seen < 4 * EACH {
                let lines = next(&mut busy).await;
                assert!(!lines.contains("missed"));
                seen += lines.lines().count();
            }
            followers.end();
            let rest = idle.collect().await.unwrap().to_bytes().to_vec();
            let rest = String::from_utf8(rest).unwrap();
            let told: Vec<_> = rest.lines().filter(|line| line.contains("missed")).collect();
            assert_eq!(rest.lines().count(), 2 * EACH + 1);
            assert_eq!(told, [format!("{{\"event\":\"missed\",\"count\":{}}}", 2 * EACH)]);
        };
        LocalSet::new().run_until(test).await;
    }

    #[tokio::test]
    async fn there_is_room_for_so_many_and_for_others_once_they_leave() {
        let (followers, _) = followers(Vec::new());
        let test = async {
            let mut all: Vec<_> = (0..MAX_FOLLOWERS).map(|_| followers.follow().unwrap()).collect();
            assert_eq!(followers.follow().unwrap_err(), BackendError::ManyFollowers);
            all.pop();
            all.push(followers.follow().unwrap());
            followers.end();
            let (mut lines, begins) = followers.follow().unwrap();
            begins.await.unwrap().unwrap();
            assert!(lines.frame().await.is_none(), "it ends at once");
        };
        LocalSet::new().run_until(test).await;
    }
}
