//! What the actor and the suite outside of the container must agree on: the stamp in every packet.

mod stamp;

pub use stamp::{STAMP, Stamp, now};
