//! unbound as a resolver that forwards to the cluster's DNS, from connected UDP sockets.

use sidestep_tests::{name_server::ENDPOINT, program};

use crate::{
    dig::dig,
    trial::{NAMES, Trial},
};

#[test]
fn unbound_outlives_its_endpoint_and_the_agent() {
    let (program, client_program) = (program!("unbound"), program!("dig"));
    let Some(mut trial) = Trial::start() else { return };
    let folder = trial.client.folder().display().to_string();
    let configuration = format!(
        "server:
  directory: \"{folder}\"
  chroot: \"\"
  username: \"\"
  pidfile: \"\"
  use-syslog: no
  interface: 127.0.0.1
  module-config: \"iterator\"
  num-threads: 1
forward-zone:
  name: \".\"
  forward-addr: {NAMES}
"
    );
    let file = trial.client.write("unbound.conf", &configuration).expect("the configuration");
    // In the foreground, without a file for its process id.
    let arguments = ["-d".as_ref(), "-p".as_ref(), "-c".as_ref(), file.as_os_str()];
    trial.run_in_background(program.command(arguments));
    let ask = |client: &_| dig(&client_program, client, "127.0.0.1", &[ENDPOINT, "A"]);
    trial.wait_for_endpoint(ask);
    trial.survives(ask);
}
