#!/bin/sh
#SBATCH --job-name=fit
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --time=01:00:01
#SBATCH --partition=long
#SBATCH --account=phys
#SBATCH --output=/home/mara/fit.out
#SBATCH --error=/home/mara/fit.err
#SBATCH --dependency=afterany:12
#SBATCH --mem=2gb
#SBATCH --export=ALL
#PBS -m abe

cd '/tmp/a b' || exit 1
export A='it'"'"'s "x,y"
$HOME'
echo done
# submitted by: sbatch --parsable --no-requeue SCRIPT
