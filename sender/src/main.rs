//! sendshot-sender: the daemon on the host whose volumes are replicated.

use std::process::ExitCode;

use clap::Parser;
use sendshot_sender::arguments::SenderArguments;
use sendshot_sender::check::{self, Scope};
use sendshot_sender::daemon::{Daemon, Options};
use sendshot_sender::shared::sender::Paths;

fn main() -> ExitCode {
    let arguments = SenderArguments::parse();
    let paths = Paths {
        config: arguments.config,
        state_dir: arguments.state_dir,
        receivers_dir: arguments.receivers_dir,
    };
    sendshot_sys::crash::arm();
    if arguments.check {
        let scope = match (arguments.config_only, arguments.online) {
            (true, _) => Scope::ConfigOnly,
            (false, true) => Scope::Online,
            (false, false) => Scope::Offline,
        };
        return check::run(&paths, scope);
    }
    let options = Options {
        paths,
        socket: arguments.socket,
    };
    sendshot_service::run(|life| async move { Daemon::bind(options).await?.join(life).await })
}
