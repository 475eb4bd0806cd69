# What the node keeps is below the run folder and shows at the usual paths; what it holds while it runs is in memory.
mount --bind '@STATE@/kubelet' /var/lib/kubelet
mount --bind '@STATE@/containerd' /var/lib/containerd
mount --bind '@STATE@/pods' /var/log/pods
for folder in /var/lib/cni /var/log/containers /run/netns /run/containerd; do
    mount -t tmpfs tmpfs "$folder"
done
# The kubelet wants to set these of the whole machine: it gets files instead.
for setting in vm/overcommit_memory vm/panic_on_oom kernel/panic kernel/panic_on_oops kernel/keys/root_maxkeys \
    kernel/keys/root_maxbytes; do
    file='@STATE@/sysctl/'$(basename "$setting")
    cat "/proc/sys/$setting" >"$file"
    mount --bind "$file" "/proc/sys/$setting"
done
mount --make-rshared /
touch '@STATE@/mounted'
exec sleep infinity
