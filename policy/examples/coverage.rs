//! Prints docs/coverage.md: `cargo run -p ringfence-policy --example coverage > docs/coverage.md`.

fn main() {
    print!("{}", ringfence_policy::coverage::markdown(ringfence_policy::Catalogue::builtin()));
}
