//! The gateway process itself, locked up, with its supervisor here.

use std::{
    io::ErrorKind,
    os::fd::AsFd as _,
    process::{Child, Command},
    sync::mpsc::channel,
};

use gateway::{
    Descriptors,
    conntrack::{pair, serve_with},
    supervisor::Supervisor,
};

use super::{PROHIBITED, rig};
use crate::world::{self, IPV4, plan};
use rig::{PATIENCE, SERVER, become_host, connect, exchange, policies, receive};

/// The end of a test, also of one that fails.
struct Ends(Child);

impl Drop for Ends {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn stats(supervisor: &Supervisor) -> api::Stats {
    let (reply, replies) = channel();
    supervisor.stats(move |stats| reply.send(stats).unwrap());
    replies.recv_timeout(PATIENCE).unwrap().unwrap()
}

/// Sets a policy, and waits until it is in force.
fn set_policy(supervisor: &mut Supervisor, policies: egress::Policies) {
    let (done, is_done) = channel();
    supervisor.set_policy(policies, move |result| done.send(result).unwrap()).unwrap();
    is_done.recv_timeout(PATIENCE).unwrap().unwrap();
}

#[test]
fn the_policy_of_the_supervisor_is_in_force_from_the_start_and_when_a_change_is_answered() {
    let plan = plan(IPV4, None);
    let world = world::world(&plan);
    let (conntrack, theirs) = pair().unwrap();
    std::thread::spawn(move || {
        serve_with(&theirs, |queries| queries.iter().map(|_| Ok(None)).collect())
    });
    let (factory, maker) = relay::factory::pair().unwrap();
    world.spawn_in_g(move || relay::factory::serve(maker, || false).unwrap());
    let Descriptors { dial, data, v4, .. } = &world.inside;
    let [dial, data, v4] = [dial, data, v4].map(|fd| fd.try_clone().unwrap());
    let descriptors = Descriptors { dial, data, v4, v6: None, conntrack, overlay: None };
    let mut supervisor = Supervisor::new(plan, descriptors, factory, Vec::new(), 1024);
    let deny = || {
        policies(&["[[rule]]\nname = \"all\"\naction = \"deny\"\nfrom = { daemon = true }"], &[])
    };
    set_policy(&mut supervisor, deny());
    let control = supervisor.renew().unwrap();
    let host = std::thread::spawn(move || {
        become_host();
        let test = "egress::process::gateway_alone";
        let args = ["--exact", test, "--ignored", "--nocapture", "--test-threads=1"];
        Command::new(std::env::current_exe().unwrap()).args(args).stdin(control).spawn().unwrap()
    });
    let _process = Ends(host.join().unwrap());
    let (ready, is_ready) = channel();
    supervisor.configure(None, move || ready.send(()).unwrap()).unwrap();
    is_ready.recv_timeout(PATIENCE).unwrap();

    assert_eq!(connect(20_001, SERVER).err(), Some(PROHIBITED));
    set_policy(&mut supervisor, policies(&[], &[]));
    assert_eq!(stats(&supervisor).policy, None);
    let stream = connect(20_001, SERVER).unwrap();
    exchange(&stream, b"hello").unwrap();
    set_policy(&mut supervisor, deny());
    let file = &stats(&supervisor).policy.unwrap().files[0];
    assert_eq!((&*file.rules[0].name, file.rules[0].matched), ("all", 0));
    assert_eq!(receive(&stream), Err(ErrorKind::ConnectionReset));
    assert_eq!(connect(20_001, SERVER).err(), Some(PROHIBITED));
    assert_eq!(stats(&supervisor).policy.unwrap().files[0].rules[0].matched, 1);
}

#[test]
#[ignore = "run in a process of its own by egress::process::the_policy_of_the_supervisor_is_in_force_from_the_start_and_when_a_change_is_answered"]
fn gateway_alone() {
    let control = std::io::stdin().as_fd().try_clone_to_owned().unwrap();
    gateway::process::run(control).unwrap();
}
