//! What the tools of this repository share: commands, the programs and accounts of the machine, long steps.

pub mod account;
pub mod cargo;
pub mod command;
pub mod host;
pub mod process;
pub mod stages;
pub mod table;
