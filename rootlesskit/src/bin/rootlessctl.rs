//! `rootlessctl`: the API of a running rootlesskit on the command line.

fn main() -> std::process::ExitCode {
    rootlesskit::ctl::main()
}
