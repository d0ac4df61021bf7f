# What tuning/check and tuning/apply look at; sourced by both. Every knob is one file below $root:
# empty, or another folder in tests.

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=
devices=()
huge_pages=
# Stands for the value of a file that cannot be read.
unreadable='(unreadable)'

# What is set in a file: the choice in brackets where the kernel lists all, blanks made one. Fails
# when it cannot be read.
current() {
    local text
    text=$(cat "$1" 2>/dev/null) || return
    text=$(tr -s '[:space:]' ' ' <<<"$text")
    [[ $text =~ \[([^]]*)\] ]] && text=${BASH_REMATCH[1]}
    text=${text# }
    echo "${text% }"
}

# Whether $1 is at least $2, number by number.
reaches() {
    local -a is=($1) wanted=($2)
    local i
    for i in "${!wanted[@]}"; do
        ((${is[i]:-0} >= wanted[i])) || return 1
    done
}

# Fails, with the reason, when a device that was named is not one of this machine's. `/dev/` may
# stand before its name.
check_devices() {
    local i
    for i in "${!devices[@]}"; do
        devices[i]=${devices[i]#/dev/}
        [[ -d $root/sys/block/${devices[i]} ]] && continue
        echo "--device ${devices[i]}: there is no $root/sys/block/${devices[i]}; name a whole device, like nvme0n1" >&2
        exit 2
    done
}

# Block devices with hardware behind them, unless some were named.
list_devices() {
    if ((${#devices[@]})); then
        printf '%s\n' "${devices[@]}"
        return
    fi
    local device
    for device in "$root"/sys/block/*/device; do
        [[ -e $device ]] && basename "$(dirname "$device")"
    done
}

# One line per knob of this machine: name, file, wanted value, and "=" or ">=" (more is as good).
knobs() {
    local file device key value clocks
    for file in "$root"/sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor; do
        printf 'governor\t%s\tperformance\t=\n' "$file"
    done
    file=$root/sys/devices/system/clocksource/clocksource0
    clocks=" $(cat "$file/available_clocksource" 2>/dev/null || true) "
    # Under KVM both are read without a system call: the one in use stays.
    if [[ $clocks == *' tsc '* && $(current "$file/current_clocksource" || true) != kvm-clock ]]; then
        printf 'clocksource\t%s\ttsc\t=\n' "$file/current_clocksource"
    fi
    printf 'hugepages\t%s\tmadvise\t=\n' "$root/sys/kernel/mm/transparent_hugepage/enabled"
    if [[ $huge_pages ]]; then
        printf 'hugepages\t%s\t%s\t>=\n' "$root/proc/sys/vm/nr_hugepages" "$huge_pages"
    fi
    while read -r device; do
        file=$root/sys/block/$device/queue
        printf 'io-scheduler\t%s\tnone\t=\n' "$file/scheduler"
        printf 'nomerges\t%s\t2\t=\n' "$file/nomerges"
        # After the scheduler, which may set it.
        printf 'write-back-throttle\t%s\t0\t=\n' "$file/wbt_lat_usec"
    done < <(list_devices)
    while IFS='=' read -r key value; do
        key=${key//[[:space:]]/} value=${value# }
        [[ $key && $key != '#'* ]] || continue
        file=$root/proc/sys/${key//.//}
        case $key in
            *mem | *mem_max | *somaxconn | *backlog) printf '%s\t%s\t%s\t>=\n' "$key" "$file" "$value" ;;
            *) printf '%s\t%s\t%s\t=\n' "$key" "$file" "$value" ;;
        esac
    done <"$here/90-longship.conf"
}

# The knobs that are there and not as wanted: name, file, value now, wanted value.
differing() {
    local name file wanted how now
    while IFS=$'\t' read -r name file wanted how; do
        [[ -e $file ]] || continue
        if now=$(current "$file"); then
            [[ $now == "$wanted" ]] && continue
            [[ $how == '>=' ]] && reaches "$now" "$wanted" && continue
        else
            now=$unreadable
        fi
        printf '%s\t%s\t%s\t%s\n' "$name" "$file" "$now" "$wanted"
    done < <(knobs)
}
