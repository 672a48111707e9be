//! Whether this is a container, and whose.

use idmap::Kind;
use idmap::outer::Outer;

use crate::place::World;

/// What made the container, as far as the words of a remedy depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// Docker, Podman, and what takes their flags.
    Docker,
    /// LXC, Incus, LXD, Proxmox.
    Lxc,
    Kubernetes,
    /// systemd-nspawn and others that systemd knows, or nobody knows.
    Other,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    pub engine: Engine,
    /// What says so: a file, or a variable.
    pub mark: &'static str,
}

impl Container {
    pub fn gather(world: &World) -> Option<Self> {
        let there = |file: &str| world.at(file).exists();
        let of = |engine, mark| Some(Self { engine, mark });
        if world.env.nonempty("KUBERNETES_SERVICE_HOST").is_some() {
            return of(Engine::Kubernetes, "KUBERNETES_SERVICE_HOST");
        }
        if there("run/secrets/kubernetes.io") || there("var/run/secrets/kubernetes.io") {
            return of(Engine::Kubernetes, "/run/secrets/kubernetes.io");
        }
        if there(".dockerenv") {
            return of(Engine::Docker, "/.dockerenv");
        }
        if there("run/.containerenv") {
            return of(Engine::Docker, "/run/.containerenv");
        }
        // systemd writes there what the engine calls itself (https://systemd.io/CONTAINER_INTERFACE).
        if let Some(name) = world.text("run/systemd/container") {
            let engine = match name.as_str() {
                "lxc" | "lxc-libvirt" => Engine::Lxc,
                "docker" | "podman" | "oci" => Engine::Docker,
                _ => Engine::Other,
            };
            return of(engine, "/run/systemd/container");
        }
        if there("dev/lxd") || there("dev/incus") || there("dev/.lxc") {
            return of(Engine::Lxc, "/dev");
        }
        // On a host all ids are there.
        let whole = |kind| Outer::read(&world.root, kind).is_whole();
        if whole(Kind::Uid) { None } else { of(Engine::Other, "/proc/self/uid_map") }
    }

    /// How to let it do what rootless Docker does.
    pub fn loosened(&self) -> &'static str {
        match self.engine {
            Engine::Docker => {
                "start the container with --privileged, or with --security-opt seccomp=unconfined --security-opt \
                 apparmor=unconfined --security-opt systempaths=unconfined"
            }
            Engine::Lxc => {
                "on the container's host, allow nested containers: `lxc.include = \
                 /usr/share/lxc/config/nesting.conf` in the container's LXC configuration, security.nesting=true in \
                 Incus and LXD, or the feature nesting=1 in Proxmox"
            }
            Engine::Kubernetes => {
                "in the pod's securityContext, set privileged: true; or set seccompProfile and appArmorProfile to \
                 type Unconfined, and procMount: Unmasked"
            }
            Engine::Other => {
                "start the container without a seccomp filter, without a security-module profile and without mounts \
                 below /proc (with Docker and Podman: --privileged)"
            }
        }
    }

    /// How to give it a device that its host has.
    pub fn with_device(&self, device: &str) -> String {
        match self.engine {
            Engine::Docker => format!("start this container with --device {device}"),
            Engine::Lxc => format!(
                "on the container's host, add the device. LXC: put `lxc.mount.entry = {device} {} none \
                 bind,optional,create=file` into the container's configuration; Proxmox: the same, with \
                 `lxc.mount.entry:`; Incus and LXD: add a unix-char device with path={device}",
                device.trim_start_matches('/')
            ),
            Engine::Kubernetes => "in the pod's securityContext, set privileged: true".to_owned(),
            Engine::Other => format!(
                "start this container with the device {device} (with Docker and Podman: --device {device})"
            ),
        }
    }
}
