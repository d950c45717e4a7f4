//! A dashboard that was built anew makes a new gateway; the folder itself is always there.

fn main() {
    println!("cargo:rerun-if-changed=ui/dist");
}
