//! The launcher itself, with the real binary between stub programs. Needs root, to become an ordinary user.

mod child;
mod parent;
mod place;
