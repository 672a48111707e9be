//! Folders of releases, real and made up, and a web server for them.

use std::fs;

use tests::{Context as _, PATIENCE, Result, Running, TestBox, paths};

/// Address of [`serve`].
pub(super) const PORT: &str = "http://peer.test:8000";

/// Copies what `cargo xtask dist` made to `/srv/release`: tarball, script and checksums.
pub(super) fn copy_release(b: &TestBox) -> Result<()> {
    let dist = paths::target()?.join("dist");
    let hint = || format!("nothing in {}\nhint: run `cargo xtask dist`", dist.display());
    for entry in fs::read_dir(&dist).with_context(hint)? {
        let path = entry?.path();
        let name = path.file_name().context("a file name")?.to_string_lossy().into_owned();
        if name.ends_with(".tgz") || name == "install.sh" || name == "SHA256SUMS" {
            fs::copy(&path, b.path(&format!("/srv/release/{name}")))?;
        }
    }
    Ok(())
}

/// A web server and proxy in a shell: the last part of the path is a file in `/srv/release`. Archives come `whole`, are
/// `cut` before their announced length, or `stall` after the first bytes.
const SERVER: &str = r#"#!/bin/sh
read -r method path version
while read -r line && [ "${#line}" -gt 1 ]; do :; done
file=/srv/release/${path##*/}
[ -f "$file" ] || { printf 'HTTP/1.0 404 Not Found\r\nContent-Length: 0\r\n\r\n'; exit; }
printf 'HTTP/1.0 200 OK\r\nContent-Length: %s\r\n\r\n' "$(stat -c %s "$file")"
case $1,$path in
cut,*.tgz) head -c 100 "$file" ;;
stall,*.tgz) head -c 100 "$file"; exec sleep 600 ;;
*) exec cat "$file" ;;
esac
"#;

/// Serves `/srv/release` on the other machine until the result is dropped.
pub(super) fn serve<'b>(b: &'b TestBox, how: &str) -> Result<Running<'b>> {
    b.script("/srv/serve", SERVER)?;
    let server = b
        .peer(&format!("exec socat TCP-LISTEN:8000,reuseaddr,fork EXEC:'/srv/serve {how}'"))
        .spawn()?;
    let up = || Ok(b.user(&format!("curl -sS -m5 {PORT}/none")).run()?.code == 0);
    tests::wait::until_true("the release is served", PATIENCE, up)?;
    Ok(server)
}

/// Releases of shell scripts with the names of our programs. The setup tool writes its arguments to `~/.stub` and ends
/// with the exit status `STUB_CODE`.
pub(super) struct Stubs<'b>(&'b TestBox);

impl<'b> Stubs<'b> {
    /// In this box.
    pub(super) fn new(b: &'b TestBox) -> Result<Self> {
        let script = fs::read(installer()?)?;
        fs::write(b.path("/srv/release/install.sh"), script)?;
        b.script(
            "/srv/stub",
            "#!/bin/sh\ncase $0 in *setuptool.sh) echo \"$*\" >$HOME/.stub; exit ${STUB_CODE:-0} ;; esac\n",
        )?;
        Ok(Self(b))
    }

    /// Makes the release `version` in `/srv/release`, with `more` programs.
    pub(super) fn release(&self, version: &str, more: &str) -> Result<()> {
        let line = format!("for p in {more}; do cp /srv/stub t/docker-rootless-extras/$p; done");
        self.archive("/srv/release", version, &line)
    }

    /// Makes a release in the folder `to`, changed by a shell line before it is packed.
    pub(super) fn archive(&self, to: &str, version: &str, line: &str) -> Result<()> {
        let names = "rootlesskit rootlessctl rootlesskit-docker-proxy dockerd-rootless.sh dockerd-rootless-setuptool.sh";
        self.0
            .root(&format!(
                "set -e; cd $(mktemp -d -p /root); mkdir -p {to} t/docker-rootless-extras
                for p in {names}; do cp /srv/stub t/docker-rootless-extras/$p; done
                ln -s dockerd-rootless.sh t/docker-rootless-extras/dockerd-rootless
                {line}
                tar -C t -czf {to}/docker-rootless-extras-{version}.tgz docker-rootless-extras
                cd {to}; sha256sum *.tgz >SHA256SUMS"
            ))
            .ok()
            .map(drop)
    }
}

/// The script in the sources.
fn installer() -> Result<std::path::PathBuf> {
    let own = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    Ok(own.parent().context("the workspace")?.join("packaging/installer/install.sh"))
}
