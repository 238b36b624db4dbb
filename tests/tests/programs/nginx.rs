//! nginx with a name in `proxy_pass`: its resolver keeps one connected UDP socket for each name server.

use sidestep_tests::{name_server::ENDPOINT, program};

use crate::{
    curl::curl,
    trial::{NAMES, Trial},
};

/// A proxy that sends `/pod` to the pod whose name server answered, and `/service` to a Service.
fn configuration() -> String {
    format!(
        "daemon off;
master_process off;
user root;
pid nginx.pid;
error_log stderr warn;
events {{}}
http {{
  access_log off;
  client_body_temp_path body;
  proxy_temp_path proxy;
  fastcgi_temp_path fastcgi;
  uwsgi_temp_path uwsgi;
  scgi_temp_path scgi;
  resolver {NAMES} valid=1s ipv6=off;
  resolver_timeout 1s;
  proxy_connect_timeout 1s;
  server {{
    listen 127.0.0.1:80;
    location /pod {{ set $upstream {ENDPOINT}:8080; proxy_pass http://$upstream; }}
    location /service {{ set $upstream web.demo.svc; proxy_pass http://$upstream; }}
  }}
}}
"
    )
}

fn survives(path: &str) {
    let (program, client_program) = (program!("nginx"), program!("curl"));
    let Some(mut trial) = Trial::start() else { return };
    let file = trial.client.write("nginx.conf", &configuration()).expect("the configuration");
    let prefix = format!("{}/", trial.client.folder().display());
    let arguments = ["-p".as_ref(), prefix.as_ref(), "-c".as_ref(), file.as_os_str()];
    trial.run_in_background(program.command(arguments));
    let url = format!("http://127.0.0.1{path}");
    let ask = |client: &_| curl(&client_program, client, &[&url]);
    trial.wait_for_endpoint(ask);
    trial.survives(ask);
}

#[test]
fn the_resolver_of_nginx_outlives_its_endpoint_and_the_agent() {
    survives("/pod");
}

#[test]
fn the_proxy_of_nginx_outlives_its_endpoint_and_the_agent() {
    survives("/service");
}
