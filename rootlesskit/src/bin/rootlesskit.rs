//! The program `rootlesskit`.

fn main() -> std::process::ExitCode {
    rootlesskit::main()
}
