//! Compiles the .proto files without protoc.

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let files = [
        "sendshot/v1/replication.proto",
        "sendshot/v1/sender_control.proto",
        "sendshot/v1/receiver_control.proto",
    ];
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(files, ["proto"])?;
    tonic_prost_build::configure()
        .bytes(".sendshot.v1.Segment.data")
        .compile_fds(descriptors)?;
    Ok(())
}
