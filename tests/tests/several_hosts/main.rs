//! Several rootless hosts as one: networks of pods or containers that lie over a network of hosts.

mod clients;
mod container;
mod drivers;
mod join;
mod kubernetes;
mod managers;
mod overlay;
mod policy;
mod stack;
mod swarm;
