//! sendshot-receiver: the daemon on the host that holds the copies.

use std::process::ExitCode;

use clap::Parser;
use sendshot_receiver::arguments::ReceiverArguments;
use sendshot_receiver::daemon::{self, Daemon, Options};

fn main() -> ExitCode {
    let arguments = ReceiverArguments::parse();
    sendshot_sys::crash::arm();
    if arguments.check {
        return sendshot_service::exit_code(daemon::check(&arguments.config, &arguments.state_dir));
    }
    let options = Options {
        config: arguments.config,
        state_dir: arguments.state_dir,
        socket: arguments.socket,
    };
    sendshot_service::run(|life| async move { Daemon::bind(options).await?.join(life).await })
}
