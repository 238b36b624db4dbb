//! Go's own resolver, HTTP client and UDP sockets. Only where Go is installed: set-up does not download its 60 MB.

use sidestep_tests::{name_server::ENDPOINT, program, program::Program};

use crate::trial::{Trial, WEB};

/// Compiles the program, which needs the standard library only, into the client's folder.
fn compile(go: &Program, trial: &Trial) -> Program {
    let source = trial.client.write("main.go", include_str!("sources/main.go")).expect("the source");
    let program = trial.client.folder().join("requests");
    let mut command = go.command(["build".as_ref(), "-o".as_ref(), program.as_os_str(), source.as_os_str()]);
    // Without C, so that names are resolved by Go's own code.
    command.env("CGO_ENABLED", "0").env("GOTOOLCHAIN", "local").env("GO111MODULE", "off");
    let output = command.output().expect("go runs");
    assert!(output.status.success(), "go build failed: {}", String::from_utf8_lossy(&output.stderr));
    Program::at(program)
}

#[test]
fn go_outlives_its_endpoint_and_the_agent() {
    let go = program!("go");
    let server = format!("{WEB}:53");
    for arguments in [
        ["resolve", ENDPOINT],
        ["get", "http://web.demo.svc/"],
        ["connected", &server],
        ["unconnected", &server],
    ] {
        let Some(trial) = Trial::start() else { return };
        println!("{arguments:?}");
        let program = compile(&go, &trial);
        trial.survives_in(program.command(arguments));
    }
}
