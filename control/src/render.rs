//! Readable forms for a terminal.

mod explanation;
mod paint;
mod status;
mod table;
mod violation;

pub use explanation::explanation;
pub use paint::Paint;
pub use status::status;
pub use table::table;
pub use violation::violation;
