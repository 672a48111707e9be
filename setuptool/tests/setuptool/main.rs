//! The setup tool itself, with the real binary between stub programs. Needs root, to become an ordinary user.

mod activation;
mod check;
mod install;
mod nsenter;
mod place;
mod purge;
mod settings;
mod supervise;
mod swarm;
mod uninstall;
