//! Subordinate ids, and the two programs that map them.

use std::collections::BTreeSet;

use hostenv::user::{self, User};
use idmap::outer::Outer;
use idmap::source::{self, Source};
use idmap::subid::SubidFileError;
use idmap::{Kind, Range, diagnose, subid, total};

use crate::place::World;

/// newuidmap(1) or newgidmap(1).
#[derive(Debug, Clone)]
pub struct Tool {
    pub kind: Kind,
    /// Where it is and what it can do; `None` when it is not in PATH.
    pub found: Option<(std::path::PathBuf, diagnose::Facts)>,
}

/// A range of somebody else that shares ids with one of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overlap {
    pub kind: Kind,
    pub ours: String,
    pub owner: String,
    pub theirs: String,
    /// It is the owner's own ID, not a range that could be another.
    pub is_account: bool,
}

#[derive(Debug, Clone)]
pub struct Ids {
    pub tools: [Tool; 2],
    /// How many ids there are for each kind, from the files or getsubids.
    pub uids: u64,
    pub gids: u64,
    /// A line of this user that makes no sense, as the message of idmap.
    pub malformed: Option<String>,
    /// A file that this user may not read.
    pub unreadable: Option<std::path::PathBuf>,
    pub overlaps: Vec<Overlap>,
    /// The ids that this container has; all of them on a host.
    pub outer: [Outer; 2],
    /// Ranges of this user that it does not have, or not all of.
    pub outside: Vec<(Kind, Range)>,
    /// A range that nobody has, for both files. It is short where a container has few ids.
    pub free: Option<Range>,
    /// `usermod --add-subuids` is there (shadow, not busybox).
    pub usermod: bool,
}

impl Ids {
    pub fn gather(world: &World) -> Self {
        let tool = |kind: Kind| Tool {
            kind,
            found: world.find(kind.tool()).map(|path| {
                let facts = diagnose::Facts::gather(&world.root, &path);
                (path, facts)
            }),
        };
        let text = |kind| hostenv::file::read(&subid::file(&world.root, kind)).unwrap_or_default();
        let (subuid, subgid) = (text(Kind::Uid), text(Kind::Gid));
        // systemd-homed gives uids below to users; containers get those above (systemd.io/UIDS-GIDS).
        let homed = world.at("run/systemd/userdb/io.systemd.Home").exists();
        let mut taken = own_ids(world);
        if homed {
            taken.push_str("homed:100000:424288\n");
        }
        let user = user::lookup_uid(&world.root, world.uid, &world.env).unwrap_or_else(|_| User {
            uid: world.uid,
            gid: world.uid,
            name: world.uid.to_string(),
            home: "/".into(),
        });
        let outer = [Kind::Uid, Kind::Gid].map(|kind| Outer::read(&world.root, kind));
        let mut ids = Self {
            tools: [tool(Kind::Uid), tool(Kind::Gid)],
            uids: 0,
            gids: 0,
            malformed: None,
            unreadable: None,
            overlaps: Vec::new(),
            outside: Vec::new(),
            free: subid::free_range_within(
                &[&subuid, &subgid, taken.as_bytes()],
                &outer[0].common(&outer[1]),
            ),
            outer,
            usermod: world.find_with_sbin("usermod").is_some(),
        };
        let (uid, gid) = match source::lookup(Source::Auto, &world.root, &user, &world.env) {
            Ok(found) => (found.uid, found.gid),
            // One kind may be missing, and each counts for itself.
            Err(_) => {
                (ids.file_ranges(world, Kind::Uid, &user), ids.file_ranges(world, Kind::Gid, &user))
            }
        };
        (ids.uids, ids.gids) = (total(&uid), total(&gid));
        for (kind, ranges, outer) in
            [(Kind::Uid, &uid, &ids.outer[0]), (Kind::Gid, &gid, &ids.outer[1])]
        {
            let outside = ranges.iter().filter(|range| !outer.holds(**range));
            ids.outside.extend(outside.map(|range| (kind, *range)));
        }
        ids.overlaps = overlaps(Kind::Uid, &uid, &subuid, &user);
        ids.overlaps.extend(overlaps(Kind::Gid, &gid, &subgid, &user));
        ids.overlaps.extend(real_users(&uid, &world.text("etc/passwd").unwrap_or_default()));
        ids
    }

    fn file_ranges(&mut self, world: &World, kind: Kind, user: &User) -> Vec<Range> {
        subid::read(&world.root, kind, user).unwrap_or_else(|error| {
            match error {
                SubidFileError::Read { path, .. } => self.unreadable = Some(path),
                error => {
                    self.malformed.get_or_insert(error.to_string());
                }
            }
            Vec::new()
        })
    }
}

/// Ranges of other owners in `text` that share ids with `ours`.
fn overlaps(kind: Kind, ours: &[Range], text: &[u8], user: &User) -> Vec<Overlap> {
    let text = String::from_utf8_lossy(text);
    let owners: BTreeSet<&str> = text
        .lines()
        .filter_map(|line| line.trim().split(':').next())
        .filter(|owner| !owner.is_empty() && !owner.starts_with('#'))
        .filter(|owner| *owner != user.name && *owner != user.uid.to_string())
        .collect();
    let mut found = Vec::new();
    for owner in owners {
        // The largest id is nobody's, so only the name matches.
        let path = std::path::Path::new(kind.subid());
        let theirs = subid::parse(path, text.as_bytes(), owner, u32::MAX).unwrap_or_default();
        for (our, their) in ours.iter().flat_map(|our| theirs.iter().map(move |their| (our, their)))
        {
            if our.start() < their.end() && their.start() < our.end() {
                found.push(Overlap {
                    kind,
                    ours: our.to_string(),
                    owner: owner.to_owned(),
                    theirs: their.to_string(),
                    is_account: false,
                });
            }
        }
    }
    found
}

/// The ids of users and groups themselves, as lines of subuid(5): a range with one of them gives containers a real user.
fn own_ids(world: &World) -> String {
    let texts = ["etc/passwd", "etc/group"]
        .map(|file| hostenv::file::read(&world.at(file)).unwrap_or_default());
    let lines = texts.iter().flat_map(|text| text.split(|byte| *byte == b'\n'));
    // Names may be anything; the third field of both files is the id.
    let ids = lines.filter_map(|line| line.split(|byte| *byte == b':').nth(2));
    let ids = ids.filter_map(|id| str::from_utf8(id).ok()?.parse::<u32>().ok());
    ids.map(|id| format!("own:{id}:1\n")).collect()
}

/// Users whose own id is in one of our ranges.
fn real_users(ours: &[Range], passwd: &str) -> Vec<Overlap> {
    let users = passwd.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let (name, id) = (fields.next()?, fields.nth(1)?.parse::<u32>().ok()?);
        let our = ours.iter().find(|our| (our.start()..our.end()).contains(&id))?;
        Some(Overlap {
            kind: Kind::Uid,
            ours: our.to_string(),
            owner: name.to_owned(),
            theirs: format!("the user ID {id}"),
            is_account: true,
        })
    });
    users.collect()
}
