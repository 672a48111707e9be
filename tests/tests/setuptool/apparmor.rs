//! AppArmor's own compiler takes the profiles. Nothing is loaded: the kernel of the machine need not have AppArmor.

use tests::{Result, Suite, TestBox, ensure};

use crate::{TOOL, in_order, packages};

/// Where rootlesskit may lie: signs that mean something to shells, but nothing to AppArmor, too.
const PATHS: [&str; 4] = [
    "/usr/bin/rootlesskit",
    "/home/tester/bin/rootlesskit",
    "/opt/Docker Inc/rootless+1.0 (beta)/rootlesskit",
    "/opt/größe $1 'a' #2 & ~!%:;=<>/rootlesskit",
];

fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}

/// The features are those of the kernel that the package was made for.
const COMPILE: &str = "apparmor_parser --skip-kernel-load --skip-cache --policy-features \
                       /usr/share/apparmor-features/features --kernel-features /usr/share/apparmor-features/features";

fn compiles(suite: Suite, parser: &[&str]) -> Result<()> {
    let b = TestBox::boot(suite)?;
    packages::unpack(&b, parser)?;
    for path in PATHS {
        let word = quoted(path);
        b.root(&format!(
            "mkdir -p \"$(dirname {word})\" && cp -n /usr/bin/true {word}; chmod 755 {word}"
        ))
        .ok()?;
        let profile = b.user(&format!("{TOOL} apparmor {word}")).ok()?;
        in_order(&profile, &[&format!("\"{path}\" flags=(unconfined) {{\n  userns,\n")])?;
        b.write("/tmp/profile", &profile)?;
        b.root(&format!("{COMPILE} /tmp/profile")).ok()?;
        // One profile, of the name of its file.
        let names = b.root(&format!("{COMPILE} --names /tmp/profile")).ok()?;
        let file = path.trim_start_matches('/').replace('/', ".");
        let word = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        let file: String = file.chars().map(|c| if word(c) { c } else { '_' }).collect();
        assert_eq!(names, format!("{file}\n"));

        // The compiler would have said so.
        b.write("/tmp/profile", &profile.replace("userns,", "usrns,"))?;
        let refused = b.root(&format!("{COMPILE} /tmp/profile")).run()?;
        ensure!(refused.code != 0, "{refused}");
    }
    Ok(())
}

#[test]
fn apparmor_4_compiles_the_profiles() -> Result<()> {
    compiles(Suite::Trixie, &["apparmor"])
}

#[test]
fn apparmor_5_compiles_the_profiles() -> Result<()> {
    compiles(Suite::Sid, &["apparmor", "libapparmor*"])
}

/// As root on a host that restricts user namespaces, as far as that can be without the kernel's part.
#[test]
fn root_writes_a_profile_that_the_real_parser_takes() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    packages::unpack(&b, &["apparmor", "libapparmor*"])?;
    // The name that root runs; the real one behind it gets the options that leave the kernel out.
    b.root("mv /usr/sbin/apparmor_parser /usr/sbin/real_parser").ok()?;
    let options = COMPILE.split_once(' ').map(|(_, options)| options).unwrap_or_default();
    b.script(
        "/usr/sbin/apparmor_parser",
        &format!("#!/bin/sh\nexec /usr/sbin/real_parser {options} \"$@\"\n"),
    )?;
    b.root("mkdir /home/tester/bin && cp /usr/bin/rootlesskit /home/tester/bin").ok()?;
    let done = b.root(&format!("{TOOL} apparmor --force /home/tester/bin/rootlesskit")).run()?;
    ensure!(done.code == 0, "{done}");
    let file = "/etc/apparmor.d/home.tester.bin.rootlesskit";
    in_order(&done.stdout, &[&format!("[INFO] Creating {file}\n"), "[INFO] Loaded the profile"])?;
    in_order(&done.stderr, &[&format!("+ apparmor_parser --replace {file}\n")])?;
    ensure!(b.exists(file), "{done}");
    // The local part that the profile names is read.
    b.root("mkdir -p /etc/apparmor.d/local").ok()?;
    b.write("/etc/apparmor.d/local/home.tester.bin.rootlesskit", "no rule of AppArmor\n")?;
    let failed = b.root(&format!("{TOOL} apparmor --force /home/tester/bin/rootlesskit")).run()?;
    ensure!(failed.code != 0, "{failed}");
    in_order(&failed.stderr, &["local/home.tester.bin.rootlesskit", "apparmor_parser failed with"])
}
