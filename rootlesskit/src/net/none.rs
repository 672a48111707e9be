//! The null drivers: `host` shares the host's network, `none` gives the child a network namespace with
//! nothing but a loopback interface.

use super::Driver;
use crate::handshake::NetworkPlan;

fn named(driver: &str) -> api::NetworkDriverInfo {
    api::NetworkDriverInfo { driver: driver.to_owned(), ..Default::default() }
}

/// `--net=host`.
#[derive(Debug)]
pub(crate) struct Host;

impl Driver for Host {
    fn info(&self) -> api::NetworkDriverInfo {
        // `docker version` dereferences the network driver, so there always is one.
        named("host")
    }

    fn isolates(&self) -> bool {
        false
    }

    fn plan(&self) -> NetworkPlan {
        NetworkPlan::default()
    }
}

/// `--net=none`.
#[derive(Debug)]
pub(crate) struct None;

impl Driver for None {
    fn info(&self) -> api::NetworkDriverInfo {
        named("none")
    }

    fn plan(&self) -> NetworkPlan {
        NetworkPlan::default()
    }
}
