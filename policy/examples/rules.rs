//! Prints docs/rules.md: `cargo run -p ringfence-policy --example rules > docs/rules.md`.

fn main() {
    print!("{}", ringfence_policy::catalogue::markdown(ringfence_policy::Catalogue::builtin()));
}
