//! An answer that goes on: lines for one client that are made while it reads.
//!
//! Whoever makes lines never waits for a client. One that does not read loses lines, and is told how many once there is
//! room again.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use hyper::body::{Body, Bytes, Frame};

use crate::flows::FlowEvent;
use crate::types::to_json;

/// Lines that wait for a client. With what the connection has taken, it is about a second of the most that there can be.
pub const MAX_LINES: usize = 8192;
/// Bytes of lines that wait for a client. Lines are far shorter, unless whoever makes them is hostile.
const MAX_BYTES: usize = 8 << 20;
/// Lines that go to the connection at a time.
const MAX_LINES_AT_ONCE: usize = 256;

#[derive(Debug, Default)]
struct State {
    lines: VecDeque<Bytes>,
    /// Their bytes.
    bytes: usize,
    /// Lines that were lost since the last one that waits.
    missed: u64,
    reader: Option<Waker>,
    /// No more lines will come.
    ended: bool,
    /// The client is gone.
    closed: bool,
}

/// The end that makes lines. When it is dropped, the answer ends behind the lines that wait.
#[derive(Debug)]
pub struct LineWriter(Rc<RefCell<State>>);

/// The lines of one client: the body of its answer.
#[derive(Debug)]
pub struct Lines(Rc<RefCell<State>>);

impl Lines {
    /// The lines of a client, and the end that makes them.
    pub fn new() -> (LineWriter, Self) {
        let state = Rc::<RefCell<State>>::default();
        (LineWriter(Rc::clone(&state)), Self(state))
    }
}

/// A flow event as a line.
pub fn line(event: &FlowEvent) -> Bytes {
    (to_json(event) + "\n").into()
}

impl LineWriter {
    /// Whether the client is gone.
    pub fn is_closed(&self) -> bool {
        self.0.borrow().closed
    }

    /// Gives the client a line, or counts one that it misses.
    pub fn write(&self, line: &Bytes) {
        let mut state = self.0.borrow_mut();
        if state.lines.len() < MAX_LINES && state.bytes + line.len() <= MAX_BYTES {
            state.tell_missed();
            state.push(line.clone());
        } else {
            state.missed = state.missed.saturating_add(1);
        }
        state.wake();
    }

    /// Counts lines that the client misses.
    pub fn miss(&self, count: u64) {
        let mut state = self.0.borrow_mut();
        state.missed = state.missed.saturating_add(count);
        state.wake();
    }
}

impl State {
    fn tell_missed(&mut self) {
        if let count @ 1.. = std::mem::take(&mut self.missed) {
            self.push(line(&FlowEvent::Missed { count }));
        }
    }

    fn push(&mut self, line: Bytes) {
        self.bytes += line.len();
        self.lines.push_back(line);
    }

    fn wake(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }
}

impl Drop for LineWriter {
    fn drop(&mut self) {
        let mut state = self.0.borrow_mut();
        state.ended = true;
        state.wake();
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        self.0.borrow_mut().closed = true;
    }
}

impl Body for Lines {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let mut state = self.0.borrow_mut();
        if state.lines.len() < MAX_LINES {
            state.tell_missed();
        }
        if state.lines.is_empty() {
            if state.ended {
                return Poll::Ready(None);
            }
            state.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let few = state.lines.len().min(MAX_LINES_AT_ONCE);
        let lines = state.lines.drain(..few).collect::<Vec<Bytes>>().concat();
        state.bytes -= lines.len();
        Poll::Ready(Some(Ok(Frame::data(lines.into()))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &mut Lines) -> Option<String> {
        let mut cx = Context::from_waker(Waker::noop());
        match Pin::new(lines).poll_frame(&mut cx) {
            Poll::Ready(Some(Ok(frame))) => {
                Some(String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap())
            }
            Poll::Ready(_) => Some("end".to_owned()),
            Poll::Pending => None,
        }
    }

    #[test]
    fn lines_come_in_order_and_end_when_nobody_makes_them() {
        let (writer, mut lines) = Lines::new();
        assert_eq!(read(&mut lines), None);
        writer.write(&Bytes::from_static(b"1\n"));
        writer.write(&Bytes::from_static(b"2\n"));
        assert_eq!(read(&mut lines).as_deref(), Some("1\n2\n"));
        writer.miss(3);
        assert_eq!(read(&mut lines).as_deref(), Some("{\"event\":\"missed\",\"count\":3}\n"));
        writer.write(&Bytes::from_static(b"3\n"));
        drop(writer);
        assert_eq!(read(&mut lines).as_deref(), Some("3\n"));
        assert_eq!(read(&mut lines).as_deref(), Some("end"));
    }

    #[test]
    fn a_client_that_does_not_read_loses_lines_and_learns_how_many_and_where() {
        let (writer, mut lines) = Lines::new();
        for n in 0..MAX_LINES + 7 {
            writer.write(&format!("{n}\n").into());
        }
        assert!(!writer.is_closed());
        let mut all = String::new();
        all.push_str(&read(&mut lines).unwrap());
        writer.write(&Bytes::from_static(b"last\n"));
        drop(writer);
        while let Some(some) = read(&mut lines).filter(|some| some != "end") {
            all.push_str(&some);
        }
        let found: Vec<_> = all.lines().collect();
        assert_eq!(found.len(), MAX_LINES + 2);
        assert_eq!(found[MAX_LINES - 1], (MAX_LINES - 1).to_string());
        assert_eq!(found[MAX_LINES..], ["{\"event\":\"missed\",\"count\":7}", "last"]);
    }

    #[test]
    fn long_lines_do_not_pile_up() {
        let (writer, mut lines) = Lines::new();
        let line = Bytes::from(vec![b'x'; MAX_BYTES / 2]);
        (0..5).for_each(|_| writer.write(&line));
        writer.miss(u64::MAX);
        let read_all = read(&mut lines).unwrap();
        let missed = format!("{{\"event\":\"missed\",\"count\":{}}}\n", u64::MAX);
        assert!(read_all.ends_with(&missed) && read_all.len() == MAX_BYTES + missed.len());
        writer.write(&line);
        assert_eq!(read(&mut lines).unwrap().len(), MAX_BYTES / 2);
    }

    #[test]
    fn who_makes_lines_sees_that_the_client_is_gone() {
        let (writer, lines) = Lines::new();
        assert!(!writer.is_closed());
        drop(lines);
        assert!(writer.is_closed());
        writer.write(&Bytes::new());
    }
}
