//! sendshot-receiver: the daemon on the host that holds the copies.

use std::process::ExitCode;

use clap::Parser;
use sendshot_receiver::arguments::ReceiverArguments;
use sendshot_receiver::check::{self, Scope};
use sendshot_receiver::daemon::{Daemon, Options};

fn main() -> ExitCode {
    let arguments = ReceiverArguments::parse();
    sendshot_sys::crash::arm();
    if arguments.check {
        let scope = scope(arguments.online);
        return check::run(&arguments.config, &arguments.state_dir, scope);
    }
    let options = Options {
        config: arguments.config,
        state_dir: arguments.state_dir,
        socket: arguments.socket,
    };
    sendshot_service::run(|life| async move { Daemon::bind(options).await?.join(life).await })
}

fn scope(online: bool) -> Scope {
    match online {
        true => Scope::Online,
        false => Scope::Offline,
    }
}
