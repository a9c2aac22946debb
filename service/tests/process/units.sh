# Process 1 of a machine of its own, in new namespaces: this machine's files, with a layer over them that takes
# what is written, and systemd. $1: an empty folder for the layer; $2: the program; $3: the repository, which may
# lie where systemd cleans up at its start.
set -e
mount --make-rprivate /
mount -t tmpfs layer "$1"
mkdir "$1/upper" "$1/work" "$1/root"
root=$1/root
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$root"
install -m 755 "$2" "$root/usr/local/bin/ferricorn"
cp -r "$3/config.toml" "$3/deploy" "$3/examples" "$root/srv/"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount -t sysfs sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount -t tmpfs tmpfs "$root/run"
mount -t tmpfs tmpfs "$root/tmp"
ip link set lo up
cd "$root"
mkdir -p old
pivot_root . old
umount -l /old
exec env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    /lib/systemd/systemd --unit=basic.target --log-target=null --show-status=no
