//! What the handle and other threads ask of a thread.

use std::io;
use std::sync::mpsc::sync_channel;

use super::{Port, Reactor};
use crate::command::Command;
use crate::event_handler::{EventLoop, OUTBOUND};
use crate::listen::Listener;
use crate::service::Service;
use crate::tcp::Moved;

impl Reactor {
    /// Carries out what the handle asks. False when the thread has to end.
    pub(super) fn handle_commands(&mut self) -> bool {
        for command in self.mailbox.take() {
            match command {
                Command::Add { id, listener, service, done } => {
                    // The caller may have given up waiting; the port is there all the same.
                    let _ = done.send(self.add(id, listener, service));
                }
                Command::Remove { id, done } => {
                    let _ = done.send(self.remove(id));
                }
                Command::Adopt { id, conn } => self.adopt(id, *conn),
                Command::Judge(judge) => self.event_loop.end_denied(judge),
                Command::Change { done } => {
                    self.with_handler((), |handler, host| handler.changed(host));
                    self.pass_judge_on();
                    let _ = done.send(());
                }
                Command::Ping { done } => {
                    let _ = done.send(());
                }
                Command::Stop => return false,
            }
        }
        true
    }

    /// Has the other threads ask whether connections may go on. What was handed over to them is in their queue before
    /// this.
    pub(super) fn pass_judge_on(&mut self) {
        let Some(judge) = self.event_loop.judge.take() else { return };
        for helper in &self.helpers {
            // It can only fail if the thread is gone, and its connections with it.
            let _ = helper.post(Command::Judge(judge.clone()));
        }
    }

    fn add(&mut self, id: u64, listener: Listener, service: Service) -> io::Result<()> {
        self.remove(id);
        let EventLoop { ctx, tcp, .. } = &mut self.event_loop;
        let port = match listener {
            Listener::Tcp(fd) => Port::Tcp(tcp.add(ctx, id, fd, service)?),
            Listener::Udp(fd) => Port::Udp(self.udp.table.add(ctx, fd, service)?),
        };
        self.ports.insert(id, port);
        Ok(())
    }

    fn adopt(&mut self, id: u64, conn: Moved) {
        let port = match self.ports.get(&id) {
            Some(Port::Tcp(key)) => *key,
            _ => {
                let key = self.event_loop.tcp.add_unserved(id);
                self.ports.insert(id, Port::Tcp(key));
                key
            }
        };
        if id == OUTBOUND {
            // For the count of descriptors: a connection that was handed over is still one out.
            self.event_loop.outbound = Some(port);
        }
        self.event_loop.tcp.adopt(&mut self.event_loop.ctx, port, conn);
    }

    fn remove(&mut self, id: u64) -> bool {
        if matches!(self.ports.get(&id), Some(Port::Tcp(_))) && self.bulk_streams > 0 {
            self.remove_elsewhere(id);
        }
        match self.ports.remove(&id) {
            Some(Port::Tcp(key)) => self.event_loop.tcp.remove(key),
            Some(Port::Udp(key)) => self.udp.table.remove(key),
            None => return false,
        }
        true
    }

    /// Has the other threads close what they move for a port. They never wait for this one, and what was
    /// handed over is in their queue before this.
    fn remove_elsewhere(&self, id: u64) {
        for helper in &self.helpers {
            let (done, result) = sync_channel(1);
            if helper.post(Command::Remove { id, done }).is_ok() {
                // It can only fail if the thread is gone, and its connections with it.
                let _ = result.recv();
            }
        }
    }
}
