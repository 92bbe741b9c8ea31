//! Empty on purpose: a library target makes this crate a possible build dependency, so that cargo sees its changes.
#![no_std]
