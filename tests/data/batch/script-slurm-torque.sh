#!/bin/sh
#PBS -N fit
#PBS -l nodes=2:ppn=4,walltime=01:00:01,mem=2gb
#PBS -q long
#PBS -m abe

cd '/tmp/a b' || exit 1
export A='it'"'"'s "x,y"
$HOME'
echo done
# submitted by: qsub -o /home/mara/fit.out -e /home/mara/fit.err -A phys -W depend=afterany:12 -r n -V SCRIPT
