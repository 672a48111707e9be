//! Port drivers: how ports of the host reach servers in the child's network namespace. `none` and `implicit`
//! have nothing to manage; [`Builtin`] does.

mod builtin;

pub(crate) use builtin::Builtin;
