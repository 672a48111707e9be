//! Real rootless Docker on the gateway network, with no network helper installed: what works, whose address a server
//! sees, and what a death of the gateway process does to it.

mod addresses;
mod attribution;
mod drivers;
mod egress;
mod faults;
mod flows;
mod host_names;
mod leftovers;
mod life;
mod load;
mod matrix;
mod networks;
mod support;
