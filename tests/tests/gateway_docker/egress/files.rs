//! Which files are in force: what the launcher finds, and what it refuses.

use tests::docker::Docker;
use tests::egress::{FILE, write};
use tests::{Result, Suite, TestBox, ensure};

use crate::support::state_dir;

/// What the launcher does with files, and without a driver that enforces them.
#[test]
fn egress_files_are_found_by_the_launcher_and_refused_with_other_drivers() -> Result<()> {
    const SYSTEM: &str = "/etc/docker-rootless/egress.toml";
    let b = TestBox::boot(Suite::Trixie)?;
    let variable = "DOCKERD_ROOTLESS_ROOTLESSKIT_EGRESS_POLICY";
    write(&b, FILE, "default = 'deny'\n")?;
    let refused = b
        .user("exec dockerd-rootless.sh")
        .env("DOCKERD_ROOTLESS_ROOTLESSKIT_NET", "slirp4netns")
        .fails_with(1)?;
    ensure!(refused.contains(FILE) && refused.contains("gateway"), "{refused}");
    let shown = |env: &[(&str, &str)]| -> Result<String> {
        let d = Docker::start(&b, env)?;
        let shown = b
            .user(&format!("rootlessctl --socket={}/api.sock policy show", state_dir(&b)?))
            .run()?;
        d.stop()?;
        Ok(format!("{}{}", shown.stdout, shown.stderr))
    };
    ensure!(shown(&[])?.contains(FILE));
    let none = shown(&[(variable, "")])?;
    ensure!(!none.contains(FILE) && none.contains("--egress-policy"), "{none}");
    // The administrator's comes first, and cannot be left out.
    b.root(&format!("mkdir -p /etc/docker-rootless && echo 'metadata = \"deny\"' >{SYSTEM}"))
        .ok()?;
    let admins = shown(&[(variable, "")])?;
    ensure!(admins.contains(SYSTEM) && !admins.contains(FILE), "{admins}");
    let both = shown(&[])?;
    let places = [SYSTEM, FILE].map(|file| both.find(file));
    ensure!(places[0].is_some() && places[0] < places[1], "{both}");
    // One that is named has to be there.
    let missing = b.user("exec dockerd-rootless.sh").env(variable, "/nonexistent/e.toml").run()?;
    let said = format!("{}{}", missing.stdout, missing.stderr);
    ensure!(missing.code != 0 && said.contains("/nonexistent/e.toml"), "{missing}");
    b.user(&format!("rm {FILE}")).ok().map(drop)
}
