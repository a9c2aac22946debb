//! The program: the bundled application on ferricorn.

mod app;

fn main() -> std::process::ExitCode {
    ferricorn::main(app::Records::default())
}
